"""A fourth skip, at stride 4: the paper has none, and it must follow from the layers as the others do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcn.data.preprocessing import CAFFE_VGG
from fcn.networks.backbones import BACKBONES
from fcn.networks.models import FCN, ModelConfig, build_model
from fcn.weights import load_weights, save_weights
from tests.fcn import networks
from tests.fcn.networks import bilinear, crop, published_parameters, random_model

pytestmark = pytest.mark.usefixtures("narrow_backbones")


def plain(model: FCN, images: Tensor) -> Tensor:
    """With plain layers; the offsets go on as those of the published prototxt files: 5, 9, then 17, and 33 at last."""
    p = published_parameters(model)
    maps = networks.vgg(p, images, (2, 2, 3, 3, 3), 100)
    x = F.conv2d(maps["fc7"], p["score_fr.weight"], p["score_fr.bias"])
    classes = x.shape[1]
    for name, offset in (("pool4", 5), ("pool3", 9), ("pool2", 17)):
        x = F.conv_transpose2d(x, bilinear(4, classes, x.dtype), stride=2)
        score = F.conv2d(maps[name], p[f"score_{name}.weight"], p[f"score_{name}.bias"])
        x = x + crop(score, offset, *x.shape[2:])
    x = F.conv_transpose2d(x, bilinear(8, classes, x.dtype), stride=4)
    return crop(x, 33, images.shape[2], images.shape[3])


@pytest.mark.parametrize("size", [(1, 1), (33, 64), (47, 90)])
def test_official_geometry(size: tuple[int, int]) -> None:
    model = random_model("vgg16", stride=4, pad="official").double().eval()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(model(images), plain(model, images), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("pad", ["official", "same"])
@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_every_backbone_covers_its_images(backbone: str, pad: str) -> None:
    with torch.device("meta"):
        model = build_model(ModelConfig(backbone, 4, 3, pad))
    assert [int(stream.position.scale) for stream in model.head.streams] == [32, 16, 8, 4]
    # With its classifier's padding, an image without a cell has no scores.
    assert model.smallest_image == 1 or (pad == "official" and "net" in backbone)
    model = random_model(backbone, stride=4, pad=pad).eval()
    size = (max(model.smallest_image, 37), max(model.smallest_image, 66))
    assert model(torch.randn(1, 3, *size)).isfinite().all()
    if pad == "same":  # a cell for each 4 pixels
        coarse = model.scores(torch.zeros(1, 3, *size)).coarse
        assert all(abs(coarse.shape[2 + axis] - size[axis] / 4) <= 1 for axis in (0, 1))


def test_staging_adds_the_skip_without_changing_scores(tmp_path: Path) -> None:
    images = torch.randn(1, 3, 65, 71)
    eighth = random_model("vgg16", stride=8).eval()
    fourth = build_model(ModelConfig("vgg16", 4, 3)).eval()
    assert fourth.init_from(eighth) == ["head.score_pool2.weight", "head.score_pool2.bias"]
    # Two bilinear steps of 2 instead of one of 8 in steps of 2 and 4: equal away from where samples lie between cells.
    assert fourth.head.fusions == ["upscore2", "upscore_pool4", "upscore_pool3"]
    coarse = fourth.scores(images).coarse
    expected = eighth.scores(images)
    step = fourth.head.upsample("upscore_pool3").geometry
    torch.testing.assert_close(
        coarse, fourth.head.upsample("upscore_pool3")(expected.coarse, None, (coarse.shape[2], coarse.shape[3]))
    )
    assert step.layer.stride == 2
    file = tmp_path / "a.safetensors"
    classes, palette = ["a", "b", "c"], [(0, 0, 0)] * 3
    save_weights(file, fourth, classes=classes, palette=palette, preprocessing=CAFFE_VGG)
    loaded = load_weights(file).model
    assert loaded.config == fourth.config
    assert torch.equal(loaded(images), fourth(images))


def test_the_papers_scales_are_not_for_it() -> None:
    with pytest.raises(ValueError, match="stride must be 16 or 8, got 4"):
        ModelConfig("vgg16", 4, at_once=True)
    with pytest.raises(ValueError, match=r"pool2 has stride 4; with stride 8 it must be one of \(32, 16, 8\)"):
        build_model(ModelConfig("vgg16", 8, truncate="pool2"))
    assert [stream.tap for stream in build_model(ModelConfig("vgg16", 4, truncate="pool3")).head.streams] == [
        "pool3",
        "pool2",
    ]
