"""The coordinate maps against PyTorch's own upsampling."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
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


@given(sizes, st.tuples(st.integers(1, 60), st.integers(1, 60)), st.integers(1, 16), st.booleans())
def test_interpolate_by_a_scale_factor(
    n: tuple[int, int], numerators: tuple[int, int], denominator: int, align_corners: bool
) -> None:
    """Sizes and samples are PyTorch's, whatever a float makes of the fraction."""
    scales = (numerators[0] / denominator, numerators[1] / denominator)
    size = tuple(int(pixels * scale) for pixels, scale in zip(n, scales, strict=True))
    assume(0 not in size)
    x = torch.randn(2, 3, *n, dtype=torch.float64)
    want = F.interpolate(x, scale_factor=scales, mode="bilinear", align_corners=align_corners)
    grid = BilinearGrid.interpolate(n, None, align_corners, scale_factor=scales)
    assert grid.size == want.shape[2:]
    torch.testing.assert_close(upsample(x, grid), want, rtol=0, atol=1e-12)
    if not align_corners:
        assert grid.scale == (Fraction(denominator, numerators[0]), Fraction(denominator, numerators[1]))


def test_sizes_of_scale_factors_are_rounded_as_floats_are() -> None:
    """In floats 100 * 1.15 is less than 115."""
    grid = BilinearGrid.interpolate((100, 100), scale_factor=(1.15, 1.25))
    assert grid.size == (114, 125) == F.interpolate(torch.zeros(1, 1, 100, 100), scale_factor=(1.15, 1.25)).shape[2:]
    assert grid.scale == (Fraction(20, 23), Fraction(4, 5))


@given(sizes, st.integers(1, 9), st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_crop_as_a_pair(n: tuple[int, int], stride: int, crop: tuple[int, int]) -> None:
    kernel = 2 * stride - stride % 2
    x = torch.randn(1, 2, *n, dtype=torch.float64)
    full = F.conv_transpose2d(x, bilinear_filter(kernel).expand(2, 1, -1, -1), stride=stride, groups=2)
    want = full[:, :, crop[0] :, crop[1] :]
    got = upsample(x, BilinearGrid.transposed(stride, crop, (want.shape[2], want.shape[3])))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    assert BilinearGrid.transposed(stride, 3, (4, 5)) == BilinearGrid.transposed(stride, (3, 3), (4, 5))


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
