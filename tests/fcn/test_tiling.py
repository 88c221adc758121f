"""Tiled prediction: the scores and labels of the whole image, whatever the tiles."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn.inference.tiling import tiled_scores, tiles
from fcn.networks.models import FCN, ModelConfig, build_model

NETWORKS = {
    "same": ModelConfig("small", stride=8, classes=4),
    "official": ModelConfig("small", stride=8, classes=4, pad="official"),
    "stride 32": ModelConfig("small", stride=32, classes=4),
    "two modalities": ModelConfig("small", stride=16, classes=4, in_channels=1, modalities=("color", "depth")),
    "two tasks": ModelConfig("small", stride=16, classes=5, tasks=(("semantic", 3), ("geometric", 2))),
}


def network(config: ModelConfig) -> FCN:
    torch.manual_seed(0)
    model = build_model(config).eval().double()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter)
    return model


MODELS = {name: network(config) for name, config in NETWORKS.items()}


@pytest.mark.parametrize("name", NETWORKS)
@settings(deadline=None, max_examples=15)
@given(height=st.integers(1, 200), width=st.integers(1, 200), tile=st.integers(1, 120))
def test_scores_are_those_of_the_whole_image(name: str, height: int, width: int, tile: int) -> None:
    model = MODELS[name]
    images = torch.randn(1, model.backbone.in_channels, height, width, dtype=torch.float64)
    with torch.no_grad():
        whole = model.task_scores(images)
    tiled = tiled_scores(model, images, tile)
    assert tiled.keys() == whole.keys() == model.config.task_classes.keys()
    for task, scores in tiled.items():
        assert scores.grid == whole[task].grid
        torch.testing.assert_close(scores.coarse, whole[task].coarse, rtol=1e-9, atol=1e-9)
        assert torch.equal(scores.labels(), whole[task].labels())


def test_a_window_is_the_tile_and_what_its_scores_see() -> None:
    """VGG16 sees 404 pixels, so a tile of 512 in a large image is read with less than 404 + 64 pixels more."""
    with torch.device("meta"):
        model = build_model(ModelConfig("vgg16"))
    spans = [part.spans[0] for part in tiles(model, (5000, 600), 512)]
    assert len({id(span) for span in spans}) == 10
    assert max(span.end - span.first for span in spans) <= 512 + 404 + 64
    owned = sorted({span.owned[0] for span in spans})
    assert owned[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(owned))


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="tile must be at least 1 pixel, got 0"):
        tiled_scores(MODELS["same"], torch.zeros(1, 3, 8, 8), 0)
    with pytest.raises(ValueError, match="evaluation mode"):
        tiled_scores(build_model(ModelConfig("small")), torch.zeros(1, 3, 8, 8), 64)
