"""The coordinate maps against PyTorch's own upsampling."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fcn_kernels import BilinearGrid, CoordMap
from fcn_kernels.ops.upsample_add.reference import upsample

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def bilinear_filter(k: int) -> torch.Tensor:
    factor = (k + 1) // 2
    center = factor - 1 if k % 2 else factor - 0.5
    profile = 1 - (torch.arange(k, dtype=torch.float64) - center).abs() / factor
    return profile[:, None] * profile


@given(sizes, st.tuples(st.integers(1, 40), st.integers(1, 40)), st.booleans())
def test_interpolate_is_torch_interpolate(n: tuple[int, int], m: tuple[int, int], align_corners: bool) -> None:
    x = torch.randn(2, 3, *n, dtype=torch.float64)
    want = F.interpolate(x, m, mode="bilinear", align_corners=align_corners)
    got = upsample(x, BilinearGrid.interpolate(n, m, align_corners))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@given(sizes, st.integers(1, 9), st.booleans(), st.integers(0, 12))
def test_transposed_is_conv_transpose_and_crop(n: tuple[int, int], stride: int, odd: bool, crop: int) -> None:
    kernel = 2 * stride - 1 if odd or stride % 2 else 2 * stride
    x = torch.randn(2, 3, *n, dtype=torch.float64)
    full = F.conv_transpose2d(x, bilinear_filter(kernel).expand(3, 1, -1, -1), stride=stride, groups=3)
    want = full[:, :, crop:, crop:]
    size = (want.shape[2], want.shape[3])
    got = upsample(x, BilinearGrid.transposed(stride, crop, size, kernel))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_grids_of_maps_and_of_integers_agree() -> None:
    grid = BilinearGrid.transposed(8, 31, (500, 375))
    axis = CoordMap.conv_transpose(16, stride=8).then(CoordMap.crop(31))
    assert (axis.scale, axis.shift) == (grid.scale[0], grid.shift[0]) == (Fraction(1, 8), Fraction(47, 16))
    same = BilinearGrid.from_maps((500, 375), axis, axis)
    assert (same.scale, same.shift, same.border) == (grid.scale, grid.shift, "zeros")
    assert BilinearGrid.from_ints(grid.as_ints()) == grid


def test_coordinate_maps_give_the_published_crop() -> None:
    """FCN-32s on VGG16: five blocks, fc6, a stride-32 deconvolution; its crop offset is 19."""
    image = CoordMap()
    net = image
    for convs in (2, 2, 3, 3, 3):
        for i in range(convs):
            net = net.then(CoordMap.conv(3, padding=100 if net == image and i == 0 else 1))
        net = net.then(CoordMap.conv(2, stride=2))
    net = net.then(CoordMap.conv(7)).then(CoordMap.conv_transpose(64, stride=32))
    assert net.crop_onto(image) == 19


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BilinearGrid.transposed(0, 0, (1, 1)), "stride must be at least 1"),
        (lambda: BilinearGrid.transposed(4, 0, (1, 1), kernel_size=5), "kernel_size for stride 4 must be 7 or 8"),
        (lambda: BilinearGrid((1, 1), (1, 1), (0, 0), (1, 1), "mirror"), "border must be one of"),
        (lambda: BilinearGrid((1, -1), (1, 1), (0, 0), (1, 1)), "size must not be negative"),
        (lambda: BilinearGrid((1, 1), (1, 1), (0, 0), (0, 1)), "denominator must be positive"),
        (lambda: CoordMap.conv(2, stride=2).crop_onto(CoordMap()), "strides must be equal"),
        (lambda: CoordMap.conv(2).crop_onto(CoordMap()), "whole number"),
    ],
)
def test_bad_grids_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
