from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fcn.evaluation.metrics import Metrics, SegmentationMetrics, metrics_from_confusion, near_boundary

# Truth 0: 6 right, 2 called 1. Truth 1: 1 called 0, 3 right, 4 called 2. No true pixel of class 2.
HAND = torch.tensor([[6, 2, 0], [1, 3, 4], [0, 0, 0]])


def values(metrics: Metrics) -> tuple[float, float, float, float]:
    return metrics.pixel_accuracy, metrics.mean_accuracy, metrics.mean_iu, metrics.frequency_weighted_iu


@pytest.mark.parametrize(
    ("absent", "mean_accuracy", "mean_iu", "last_iu"),
    [
        ("exclude", (6 / 8 + 3 / 8) / 2, (6 / 9 + 3 / 10) / 2, math.nan),
        ("official", (6 / 8 + 3 / 8) / 2, (6 / 9 + 3 / 10 + 0) / 3, 0.0),
        ("zero", (6 / 8 + 3 / 8 + 0) / 3, (6 / 9 + 3 / 10 + 0) / 3, 0.0),
    ],
)
def test_by_hand(absent: Any, mean_accuracy: float, mean_iu: float, last_iu: float) -> None:
    metrics = metrics_from_confusion(HAND, absent)
    assert values(metrics) == pytest.approx((9 / 16, mean_accuracy, mean_iu, (8 * 6 / 9 + 8 * 3 / 10) / 16))
    assert metrics.class_iu == pytest.approx([6 / 9, 3 / 10, last_iu], nan_ok=True)
    assert metrics.class_accuracy == pytest.approx([6 / 8, 3 / 8, 0.0 if absent == "zero" else math.nan], nan_ok=True)
    assert torch.equal(metrics.confusion, HAND)


def test_class_neither_true_nor_predicted() -> None:
    confusion = torch.diag(torch.tensor([5, 7, 0]))
    assert metrics_from_confusion(confusion).mean_iu == 1
    assert metrics_from_confusion(confusion, "official").mean_iu == 1
    assert metrics_from_confusion(confusion, "zero").mean_iu == pytest.approx(2 / 3)


@pytest.mark.parametrize("absent", ["exclude", "official", "zero"])
def test_no_pixel_at_all(absent: Any) -> None:
    metrics = metrics_from_confusion(torch.zeros(3, 3, dtype=torch.int64), absent)
    assert all(math.isnan(value) for value in (*values(metrics), *metrics.class_iu, *metrics.class_accuracy))


def official_score(hist: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """The formulas of the authors' score.py."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accuracy = np.diag(hist).sum() / hist.sum()
        class_accuracy = np.diag(hist) / hist.sum(1)
        iu = np.diag(hist) / (hist.sum(1) + hist.sum(0) - np.diag(hist))
        freq = hist.sum(1) / hist.sum()
        return accuracy, np.nanmean(class_accuracy), np.nanmean(iu), (freq[freq > 0] * iu[freq > 0]).sum()


@given(hnp.arrays(np.int64, st.integers(1, 6).map(lambda n: (n, n)), elements=st.integers(0, 3)))
@settings(deadline=None)
def test_official_policy_is_the_authors_score(hist: NDArray[np.int64]) -> None:
    if hist.sum() == 0:
        return
    assert values(metrics_from_confusion(torch.from_numpy(hist), "official")) == pytest.approx(official_score(hist))
    # Leaving absent classes out equals scoring without their rows, predictions of them still being errors.
    present = hist.sum(1) > 0
    iu = np.diag(hist)[present] / (hist.sum(1) + hist.sum(0) - np.diag(hist))[present]
    assert metrics_from_confusion(torch.from_numpy(hist)).mean_iu == pytest.approx(iu.mean())


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_batches_and_processes_equal_one_count(data: st.DataObject) -> None:
    classes = data.draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    target = torch.randint(0, classes + 1, (4, 5, 6), generator=generator)
    target[target == classes] = 255
    labels = torch.randint(0, classes, (4, 5, 6), generator=generator)
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    for t, p in zip(target.flatten().tolist(), labels.flatten().tolist(), strict=True):
        if t != 255:
            expected[t, p] += 1

    first, second = SegmentationMetrics(classes), SegmentationMetrics(classes)
    for index in range(4):
        (first if index < 2 else second).update(labels[index].to(torch.uint8), target[index].to(torch.uint8))
    with pytest.MonkeyPatch.context() as patch:  # two processes, seen from the first
        patch.setattr(dist, "is_initialized", lambda: True)
        patch.setattr(dist, "all_reduce", lambda total: total.add_(second.confusion))
        found = [first.compute(), first.compute()]  # asking changes nothing
    first.reset()
    assert first.compute().confusion.sum() == 0
    for metrics in found:
        assert torch.equal(metrics.confusion, expected)
        assert values(metrics) == pytest.approx(values(metrics_from_confusion(expected)), nan_ok=True)


def test_counts_are_in_no_state_dict() -> None:
    assert not SegmentationMetrics(2).state_dict()


def test_void_pixels_drop_out_whatever_is_predicted_there() -> None:
    metric = SegmentationMetrics(2)
    metric.update(torch.tensor([0, 1, 0, 9]), torch.tensor([0, 1, 255, 255]))
    assert metric.compute().confusion.tolist() == [[1, 0], [0, 1]]


def test_counts_beyond_float32() -> None:
    metric = SegmentationMetrics(2)
    metric.confusion += 2**24
    metric.update(torch.tensor([0]), torch.tensor([0]))
    assert metric.compute().confusion[0, 0].item() == 2**24 + 1


@pytest.mark.parametrize(
    ("labels", "target", "message"),
    [
        ([0, 1], [0, 7], r"target must be in \[0, 2\) or void, got 7"),
        ([0, 1], [0, -1], "target .* got -1"),
        ([0, 3], [0, 1], "labels .* got 3"),
        ([0], [0, 1], "equal shapes"),
    ],
)
def test_wrong_values(labels: list[int], target: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationMetrics(2).update(torch.tensor(labels), torch.tensor(target))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="absent"):
        metrics_from_confusion(HAND, "skip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[C, C\]"):
        metrics_from_confusion(HAND[:2])


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_near_boundary_is_within_so_many_pixels_of_another_label(data: st.DataObject) -> None:
    labels = data.draw(
        hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2))
    )
    width = data.draw(st.integers(1, 4))
    found = near_boundary(torch.from_numpy(labels)[None], width)[0]
    for (y, x), label in np.ndenumerate(labels):
        window = labels[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        assert bool(found[y, x]) == bool((window != label).any())


def test_trimaps_are_scored_beside_the_whole() -> None:
    """Half and half; wrong in the column at the boundary only: a narrow band has half its pixels wrong."""
    target = torch.zeros(1, 6, 20, dtype=torch.int64)
    target[:, :, 10:] = 1
    labels = target.clone()
    labels[:, :, 10] = 0
    metric = SegmentationMetrics(2, trimap=(1, 5))
    metric.update(labels, target)
    metric.update(labels, target)
    found = metric.compute()
    assert found.pixel_accuracy == pytest.approx(19 / 20)
    assert found.trimap_iu == pytest.approx({1: (1 / 2 + 0) / 2, 5: (5 / 6 + 4 / 5) / 2})
    with pytest.raises(ValueError, match=r"widths of at least 1 pixel, got \[0\]"):
        SegmentationMetrics(2, trimap=(0,))
