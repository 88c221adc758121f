"""Geometry against the published networks: their prototxt files' crops, Caffe's sizes, the paper's receptive fields."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fcn.networks.backbones import BACKBONES, convolutionalize
from fcn.networks.geometry import Layer, Upsampling, coord_map, output_size, paths, receptive_field, total_stride
from fcn.networks.scores import Scores
from fcn_kernels import CoordMap, upsample_add
from fcn_kernels.grid import Border

UPSCORES = {32: ("upscore",), 16: ("upscore2", "upscore16"), 8: ("upscore2", "upscore_pool4", "upscore8")}
SKIPS = ("pool4", "pool3")


def trunk_layers(name: str, pad: str) -> tuple[Layer, ...]:
    """The layers of an FCN's trunk, without the classifier's scores."""
    architecture = BACKBONES[name]
    with torch.device("meta"):
        classifier = architecture.classifier()
    padding = architecture.official_padding if pad == "official" else "same"
    return convolutionalize(classifier, architecture.taps, padding=padding, discard_average=True).layers


def vgg16_layers(pad: str = "official", first_padding: int | None = None) -> tuple[Layer, ...]:
    first, *rest = trunk_layers("vgg16", pad)
    return (replace(first, padding=first.padding if first_padding is None else first_padding), *rest)


def path(layers: tuple[Layer, ...], name: str) -> tuple[Layer, ...]:
    return paths(layers)[name]


def head(
    layers: tuple[Layer, ...], stride: int, skips: tuple[str, ...] = SKIPS, border: Border = "zeros"
) -> list[Upsampling]:
    """All upsamplings of FCN-32s, -16s or -8s."""
    steps: list[Upsampling] = []
    position = coord_map(path(layers, layers[-1].name))
    *upscores, last = UPSCORES[stride]
    for name, skip in zip(upscores, skips, strict=False):
        steps.append(Upsampling.onto(name, 1, position, coord_map(path(layers, skip)), border))
        position = steps[-1].coord_map
    return [*steps, Upsampling.onto(last, 1, position, CoordMap(), border)]


@pytest.mark.parametrize(
    ("stride", "skip_crops", "crop", "kernels"),
    [(32, [], 19, [64]), (16, [5], 27, [4, 32]), (8, [5, 9], 31, [4, 4, 16])],
)
def test_published_crops_and_kernels(stride: int, skip_crops: list[int], crop: int, kernels: list[int]) -> None:
    *fusions, last = head(vgg16_layers(), stride)
    assert [step.skip_crop for step in fusions] == skip_crops
    assert [step.crop for step in fusions] == [0] * len(fusions)
    assert (last.crop, last.skip_crop) == (crop, 0)
    assert [step.layer.kernel_size for step in (*fusions, last)] == kernels


@pytest.mark.parametrize("padding", [81, 97, 98, 100, 113, 200])
def test_crops_follow_the_first_padding(padding: int) -> None:
    layers = vgg16_layers(first_padding=padding)
    for stride, base in ((32, 81), (16, 73), (8, 69)):
        *fusions, last = head(layers, stride)
        assert last.crop == padding - base
        assert [step.skip_crop for step in fusions] == [5, 9][: len(fusions)]


def test_too_little_padding_would_crop_the_image() -> None:
    """Padding 68 samples at the same places as 100, but 13 pixels of the image lie before the first score."""
    *_, last = head(vgg16_layers(first_padding=68), 32)
    assert (last.crop, last.skip_crop) == (0, 13)


def test_coordinates_of_the_taps() -> None:
    layers = vgg16_layers()
    for name, scale, shift in (("pool3", 8, -95.5), ("pool4", 16, -91.5), ("fc7", 32, 12.5)):
        assert coord_map(path(layers, name)) == CoordMap(Fraction(scale), Fraction(shift))


@pytest.mark.parametrize(
    ("size", "pool3", "pool4", "pool5", "score_fr", "upscore2", "upscore_pool4", "out32", "out16", "out8"),
    [
        (1, 25, 13, 7, 1, 4, 10, 64, 80, 88),
        (32, 29, 15, 8, 2, 6, 14, 96, 112, 120),
        (224, 53, 27, 14, 8, 18, 38, 288, 304, 312),
        (256, 57, 29, 15, 9, 20, 42, 320, 336, 344),
        (333, 67, 34, 17, 11, 24, 50, 384, 400, 408),
        (375, 72, 36, 18, 12, 26, 54, 416, 432, 440),
        (480, 85, 43, 22, 16, 34, 70, 544, 560, 568),
        (500, 88, 44, 22, 16, 34, 70, 544, 560, 568),
        (512, 89, 45, 23, 17, 36, 74, 576, 592, 600),
        (1024, 153, 77, 39, 33, 68, 138, 1088, 1104, 1112),
        (2048, 281, 141, 71, 65, 132, 266, 2112, 2128, 2136),
    ],
)
def test_published_sizes(
    size: int, pool3: int, pool4: int, pool5: int, score_fr: int, upscore2: int, upscore_pool4: int,
    out32: int, out16: int, out8: int,
) -> None:  # fmt: skip
    layers = vgg16_layers()
    for name, expected in (("pool3", pool3), ("pool4", pool4), ("pool5", pool5), ("fc7", score_fr)):
        assert output_size(path(layers, name), size) == expected
    for stride, chain in ((32, [out32]), (16, [upscore2, out16]), (8, [upscore2, upscore_pool4, out8])):
        n, sizes = score_fr, []
        for step in head(layers, stride):
            n = step.layer.output_size(n)
            sizes.append(n)
        assert sizes == chain


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("pad", ["official", "same"])
@pytest.mark.parametrize("backbone", ["vgg16", "alexnet", "googlenet"])
def test_every_image_size_is_covered(backbone: str, pad: str, stride: int) -> None:
    layers, skips = trunk_layers(backbone, pad), BACKBONES[backbone].taps[1:]
    chains = paths(layers)
    *fusions, last = head(layers, stride, skips)
    assert all(step.crop >= 0 and step.skip_crop >= 0 for step in (*fusions, last))
    for size in range(31 if (backbone, pad) == ("googlenet", "official") else 1, 601):
        n = output_size(chains[layers[-1].name], size)
        for step, skip in zip(fusions, skips, strict=False):
            fine = output_size(chains[skip], size)
            n_upsampled, n = step.layer.output_size(n), step.overlap(n, fine)
            # The published nets crop the skip to the upsampled map; with "same" the skip is kept whole.
            if backbone != "googlenet":
                assert n == (n_upsampled if pad == "official" else fine)
            assert step.skip_crop + n <= fine
        assert last.overlap(n, size) == size


def test_rounding_down_would_not_cover_the_image() -> None:
    """The reason for ceil pooling: 12 of 32 sizes, 375 and 500 among them, come out too small without it."""

    def floored(size: int) -> int:
        for layer in vgg16_layers():
            size = (size + 2 * layer.padding - layer.kernel_size) // layer.stride + 1
        return size

    (upscore,) = head(vgg16_layers(), 32)
    short = [size for size in range(480, 512) if upscore.layer.output_size(floored(size)) - upscore.crop < size]
    assert len(short) == 12
    assert 500 in short


@pytest.mark.parametrize(
    ("backbone", "convolutions", "field"), [("alexnet", 8, 355), ("vgg16", 16, 404), ("googlenet", 22, 907)]
)
def test_table_1_of_the_paper(backbone: str, convolutions: int, field: int) -> None:
    """Convolutions one after the other, the receptive field (GoogLeNet's with its average pooling), the stride."""
    layers = BACKBONES[backbone].layers
    longest = path(layers, layers[-1].name)
    assert sum(layer.kind in ("conv", "linear") for layer in longest) == convolutions
    assert receptive_field(longest) == field
    assert total_stride(longest) == 32
    assert receptive_field(path(layers, "fc7" if backbone != "googlenet" else "inception_5b/output")) == (
        715 if backbone == "googlenet" else field
    )
    # The classifier's own images end in one cell.
    assert output_size(longest, BACKBONES[backbone].image_size) == 1


def test_receptive_fields_of_skips() -> None:
    assert receptive_field(path(vgg16_layers(), "pool3")) == 44
    assert total_stride(path(vgg16_layers(), "pool3")) == 8


@pytest.mark.parametrize(
    ("backbone", "stride", "skip_crops", "crop", "kernels"),
    [
        ("alexnet", 32, [], 18, [63]),
        ("alexnet", 16, [5], 18, [3, 31]),
        ("alexnet", 8, [5, 10], 18, [3, 3, 15]),
        ("googlenet", 32, [], 1, [63]),
        ("googlenet", 16, [0], 1, [3, 31]),
        ("googlenet", 8, [0, 0], 1, [3, 3, 15]),
    ],
)
def test_centers_on_whole_pixels_need_odd_kernels(
    backbone: str, stride: int, skip_crops: list[int], crop: int, kernels: list[int]
) -> None:
    layers = trunk_layers(backbone, "official")
    *fusions, last = head(layers, stride, BACKBONES[backbone].taps[1:])
    assert [step.skip_crop for step in fusions] == skip_crops
    assert last.crop == crop
    assert [step.layer.kernel_size for step in (*fusions, last)] == kernels
    assert [step.grid((5, 5)).shift for step in (last,)] == [
        (Fraction(2 * crop - kernels[-1] + 1, 2 * last.layer.stride),) * 2
    ]


def test_sizes_of_alexnet() -> None:
    layers = trunk_layers("alexnet", "official")
    (upscore,) = head(layers, 32)
    for size, expected in ((227, 287), (500, 543)):
        assert upscore.layer.output_size(output_size(layers, size)) == expected


def test_branches_must_be_aligned() -> None:
    branches = (Layer("a", "conv", 1, 3, padding=1), Layer("b", "conv", 1, 3, inputs=("a",)))
    with pytest.raises(ValueError, match="c: its inputs a, b are not aligned"):
        paths((*branches, Layer("c", "concat", 2, inputs=("a", "b"))))
    with pytest.raises(ValueError, match="c: no layer before it is named d"):
        paths((*branches, Layer("c", "conv", 2, inputs=("d",))))


@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 3),
)
@settings(deadline=None)
def test_layer_sizes_equal_pytorch(size: int, kernel: int, stride: int, padding: int, dilation: int) -> None:
    x = torch.zeros(1, 1, size, size)
    cases: list[tuple[Layer, torch.nn.Module]] = [
        (
            Layer("a", "conv", 1, kernel, stride, padding, dilation),
            torch.nn.Conv2d(1, 1, kernel, stride, padding, dilation),
        ),
        (
            Layer("b", "conv_transpose", 1, kernel, stride, padding, dilation),
            torch.nn.ConvTranspose2d(1, 1, kernel, stride, padding, dilation=dilation),
        ),
    ]
    if 2 * padding <= kernel:
        pool: torch.nn.Module = torch.nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=True)
        cases.append((Layer("c", "pool", 1, kernel, stride, padding, dilation), pool))
        pool = torch.nn.AvgPool2d(kernel, stride, padding, ceil_mode=True)
        cases.append((Layer("d", "avg_pool", 1, kernel, stride, padding), pool))
    for layer, module in cases:
        try:
            expected = module(x).shape[-1]
        except RuntimeError:
            expected = 0
        if expected < 1:
            with pytest.raises(ValueError, match="too small"):
                layer.output_size(size)
        else:
            assert layer.output_size(size) == expected


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_grids_sample_where_the_composed_maps_say(stride: int) -> None:
    for pad in ("official", "same"):
        layers = vgg16_layers(pad)
        coarse = coord_map(layers)
        for step in head(layers, stride):
            grid = step.grid((7, 9))
            # Sample y of the output lies at image coordinate fine(y), which is sample u of the coarse map.
            fine = step.coord_map
            assert grid.size == (7, 9)
            assert grid.scale == (fine.scale / coarse.scale,) * 2
            assert grid.shift == ((fine.shift - coarse.shift) / coarse.scale,) * 2
            coarse = fine


def caffe_deconvolution(x: NDArray[np.float64], kernel: int, stride: int) -> NDArray[np.float64]:
    """``[C, h, w]``: Caffe's scatter, with the bilinear filter of the authors' surgery.py."""
    factor = (kernel + 1) // 2
    center = factor - 1 if kernel % 2 else factor - 0.5
    profile = 1 - abs(np.arange(kernel) - center) / factor
    c, h, w = x.shape
    out = np.zeros((c, stride * (h - 1) + kernel, stride * (w - 1) + kernel))
    for i in range(h):
        for j in range(w):
            patch = x[:, i, j, None, None] * np.outer(profile, profile)
            out[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel] += patch
    return out


def cropped(x: NDArray[np.float64], offset: int, size: tuple[int, ...]) -> NDArray[np.float64]:
    part = x[:, offset : offset + size[0], offset : offset + size[1]]
    assert part.shape[1:] == size  # A slice past the end would be shorter, in silence.
    return part


@pytest.mark.parametrize(("height", "width"), [(1, 45), (33, 64), (90, 61)])
def test_published_heads_in_numpy(height: int, width: int) -> None:
    """Random score maps through the prototxt's Deconvolution, Crop and Eltwise layers, and through our grids."""
    layers = vgg16_layers()
    rng = np.random.default_rng(0)
    fr, pool4, pool3 = (
        rng.standard_normal((2, output_size(path(layers, name), height), output_size(path(layers, name), width)))
        for name in ("fc7", "pool4", "pool3")
    )
    upscore2 = caffe_deconvolution(fr, 4, 2)
    fuse_pool4 = upscore2 + cropped(pool4, 5, upscore2.shape[1:])
    upscore_pool4 = caffe_deconvolution(fuse_pool4, 4, 2)
    fuse_pool3 = upscore_pool4 + cropped(pool3, 9, upscore_pool4.shape[1:])
    expected = {
        32: cropped(caffe_deconvolution(fr, 64, 32), 19, (height, width)),
        16: cropped(caffe_deconvolution(fuse_pool4, 32, 16), 27, (height, width)),
        8: cropped(caffe_deconvolution(fuse_pool3, 16, 8), 31, (height, width)),
    }
    for stride, scores in expected.items():
        *fusions, last = head(layers, stride)
        coarse = torch.from_numpy(fr)[None]
        for step, skip in zip(fusions, (pool4, pool3), strict=False):
            size = (step.overlap(coarse.shape[2], skip.shape[1]), step.overlap(coarse.shape[3], skip.shape[2]))
            part = torch.from_numpy(cropped(skip, step.skip_crop, size))[None]
            coarse = upsample_add(coarse, part, grid=step.grid(size))
        logits = Scores(coarse, last.grid((height, width))).logits()
        np.testing.assert_allclose(logits[0].numpy(), scores, rtol=0, atol=1e-12)
