"""The comparison of other libraries' models, on a model of our own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench import fuse_models, libraries

CLASSES = 30


def small() -> libraries.Model:
    module = nn.Sequential(nn.Conv2d(3, CLASSES, 8, stride=8), nn.Upsample(scale_factor=8, mode="bilinear"))
    return libraries.Model(
        module,
        CLASSES,
        lambda images, target: F.cross_entropy(module(images), target),
        lambda images: module(images).argmax(1),
    )


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setitem(libraries.MODELS, "small", ("ours", small))
    yield
    torch.set_num_threads(threads)


def test_a_row_and_the_table() -> None:
    row = fuse_models.measure("small", size=64, batch=2, rounds=1)
    assert row.fused == [f"argmax of [2, {CLASSES}, 64, 64]", f"cross_entropy of [2, {CLASSES}, 64, 64]"]
    assert row.made == []
    assert row.loss[0] == pytest.approx(row.loss[1], rel=1e-6)
    assert 0 < row.gradient < 1e-5  # two computations, not one
    assert row.equal == 1
    assert all(seconds > 0 for seconds in row.step + row.labels)
    row.step, row.step_memory = [0.2, 0.1], [30_000_000, 10_000_000]
    text = fuse_models.table([row], 64, 2)
    assert "| small (ours), 30 | 200 → 100 (2.0x) | 30 → 10 (3.0x) |" in text
    assert "2 random images of 64 x 64" in text


def test_how_far_apart_the_scores_of_differing_labels_are() -> None:
    torch.manual_seed(0)
    model, images = small(), torch.randn(1, 3, 16, 16)
    scores = model.module(images)
    labels = scores.argmax(1)
    others = labels.clone()
    others[0, 3, 5] = (labels[0, 3, 5] + 1) % CLASSES
    apart = (scores[0, labels[0, 3, 5], 3, 5] - scores[0, others[0, 3, 5], 3, 5]).abs() / scores.abs().max()
    assert fuse_models._tie(model, images, [labels, others]) == pytest.approx(apart.item())


def test_the_page_shows_the_committed_results() -> None:
    rows = [fuse_models.Row(**row) for row in json.loads(fuse_models.RESULTS.read_text())]
    shown = fuse_models.table(rows, 256, 2).split("\n\n")[0]  # below it stands the machine
    assert shown in fuse_models.PAGE.read_text()
