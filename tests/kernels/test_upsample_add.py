"""upsample_add: every backend against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import BilinearGrid, CoordMap, upsample_add
from fcn_kernels.backend import implementation
from fcn_kernels.grid import Border
from tests.kernels.conftest import classes_of, emulated, images_of, side_of
from tests.strategies import (
    LAYOUTS,
    assert_as_good_as_torch,
    assert_fences_hold,
    dtypes_of,
    far_apart,
    fenced,
    grids,
    scores,
    with_layout,
)

KINDS = ("normal", "constant", "huge")


def with_gradient(x: Tensor, upstream: Tensor, grid: BilinearGrid, backend: str) -> tuple[Tensor, Tensor]:
    """The upsampled map, and the gradient of x for the map's gradient ``upstream``."""
    x = x.detach().requires_grad_()
    out = upsample_add(x, grid=grid, backend=backend)
    return out.detach(), *torch.autograd.grad(out, x, upstream)


@given(data=st.data())
def test_forward_and_backward(backend: str, data: st.DataObject) -> None:
    x = data.draw(
        scores(max_classes=classes_of(backend), max_images=images_of(backend), kinds=KINDS, dtypes=dtypes_of(backend))
    )
    grid = data.draw(grids((x.shape[2], x.shape[3]), side_of(backend)))
    skip = None
    if data.draw(st.booleans()):
        skip = with_layout(torch.randn(*x.shape[:2], *grid.size).to(x.dtype), data.draw(st.sampled_from(LAYOUTS)))
    upstream = torch.randn(*x.shape[:2], *grid.size, dtype=torch.float64).to(x.dtype)

    def run(which: str, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [t.detach().to(dtype).requires_grad_() for t in (x, skip) if t is not None]
        leaves = [
            leaf if leaf is not t else t.detach().requires_grad_() for leaf, t in zip(leaves, (x, skip), strict=False)
        ]
        out = upsample_add(*leaves, grid=grid, backend=which)
        return [out.detach(), *torch.autograd.grad(out, leaves, upstream.to(dtype))]

    ours, torchs, oracle = run(backend, x.dtype), run("reference", x.dtype), run("reference", torch.float64)
    for name, a, b, c in zip(("out", "grad x", "grad skip"), ours, torchs, oracle, strict=False):
        assert a.dtype == x.dtype
        # Sums may cancel: what is rounded is as large as the terms.
        terms = (upstream,) if name.startswith("grad") else (x, skip)
        scale = max((float(t.abs().max()) for t in terms if t is not None and t.numel() > 0), default=0.0)
        assert_as_good_as_torch(a, b, c, name, scale)


@given(data=st.data())
def test_writes_every_element_and_no_other(backend: str, data: st.DataObject) -> None:
    x = data.draw(
        scores(
            max_classes=classes_of(backend),
            max_images=images_of(backend),
            dtypes=(torch.float32, torch.bfloat16),
            kinds=("normal",),
            min_images=1,
        )
    )
    grid = data.draw(grids((x.shape[2], x.shape[3]), side_of(backend)))
    layout = data.draw(st.sampled_from(("contiguous", "channels_last")))
    shape = (*x.shape[:2], *grid.size)
    kernels = implementation("upsample_add", backend)
    out, buffer = fenced(shape, x.dtype, layout)
    kernels.upsample_add(x, None, grid.as_ints(), out)
    assert_fences_hold(buffer)
    torch.testing.assert_close(out, upsample_add(x, grid=grid, backend="reference"))
    grad_x, buffer = fenced(tuple(x.shape), x.dtype, layout)
    kernels.upsample_add_backward(torch.ones(shape, dtype=x.dtype), grid.as_ints(), grad_x)
    assert_fences_hold(buffer)
    assert not grad_x.isnan().any()


@pytest.mark.parametrize("height", [5, 9, 17])
@pytest.mark.parametrize("border", ["zeros", "clamp"])
def test_rows_past_the_bottom(backend: str, height: int, border: Border) -> None:
    """A kernel that keeps rows for later must not give up one still needed where the next would lie outside."""
    x = torch.randn(1, 2, height, 20)
    rows, columns = CoordMap.conv_transpose(6, stride=3), CoordMap.conv_transpose(4, stride=2)
    grid = BilinearGrid.from_maps((3 * height + 3, 42), rows, columns, border)
    torch.testing.assert_close(
        upsample_add(x, grid=grid, backend=backend), upsample_add(x, grid=grid, backend="reference")
    )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("border", ["zeros", "clamp"])
@pytest.mark.parametrize("stride", [2, 3, 8])
def test_wide_rows(backend: str, stride: int, border: Border, layout: str) -> None:
    """Several vectors, or blocks, of every kind to a row, and a part of one."""
    height, width = (3, 39) if emulated(backend) else (5, 75)
    x = with_layout(torch.randn(1, 2, height, width), layout)
    columns = CoordMap.conv_transpose(2 * stride - stride % 2, stride, padding=1)
    grid = BilinearGrid.from_maps((height * stride, width * stride), columns, columns, border)
    upstream = torch.randn(1, 2, *grid.size)
    ours, right = (
        with_gradient(x.to(dtype), upstream.to(dtype), grid, which)
        for which, dtype in ((backend, torch.float32), ("reference", torch.float64))
    )
    for got, want in zip(ours, right, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


def test_large_maps_repeat_bit_for_bit(backend: str) -> None:
    """Large enough for stores that bypass the cache, and for several threads."""
    height, width = (16, 40) if emulated(backend) else (128, 160)
    planes = (2, 3 if emulated(backend) else 40)
    x, skip = torch.randn(*planes, height, width), torch.randn(*planes, 2 * height, 2 * width)
    first = upsample_add(x, skip, backend=backend)
    torch.testing.assert_close(first, upsample_add(x, skip, backend="reference"), rtol=1e-5, atol=1e-5)
    assert torch.equal(first, upsample_add(x, skip, backend=backend))


def test_offsets_pass_2_to_the_31(backend: str) -> None:
    x, skip = torch.randn(2, 3, 5, 8).bfloat16(), torch.randn(2, 3, 10, 16).bfloat16()
    want = upsample_add(x, skip, backend=backend)
    assert torch.equal(upsample_add(far_apart(x), far_apart(skip), backend=backend), want)
    kernels, grid = implementation("upsample_add", backend), BilinearGrid.interpolate((5, 8), (10, 16)).as_ints()
    near, far = torch.empty_like(x), torch.empty_like(x)
    kernels.upsample_add_backward(skip, grid, near)
    kernels.upsample_add_backward(far_apart(skip), grid, far)
    assert torch.equal(near, far)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_layout_follows_skip(backend: str, layout: str) -> None:
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    skip = torch.randn(2, 4, 6, 8).contiguous(memory_format=memory_format)
    assert upsample_add(torch.randn(2, 4, 3, 4), skip, backend=backend).is_contiguous(memory_format=memory_format)
    x = torch.randn(2, 4, 3, 4).contiguous(memory_format=memory_format)
    assert upsample_add(x, size=(6, 8), backend=backend).is_contiguous(memory_format=memory_format)


def test_gradcheck(backend: str) -> None:
    if torch.float64 not in dtypes_of(backend):
        pytest.skip("no float64, in which numerical derivatives are exact enough")
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(1, 2, 9, 11, dtype=torch.float64, requires_grad=True)
    for grid in (None, BilinearGrid.transposed(4, 3, (9, 11)), BilinearGrid.interpolate((3, 4), (9, 11), True)):
        for which in (backend, "reference"):
            assert torch.autograd.gradcheck(
                lambda a, b, g=grid, w=which: upsample_add(a, b, grid=g, backend=w), (x, skip)
            )


def test_every_instruction_set_agrees(isa: str) -> None:
    for size in ((70, 70), (68, 272), (33, 41)):
        x, upstream, grid = (
            torch.randn(1, 3, 34, 136),
            torch.randn(1, 3, *size),
            BilinearGrid.interpolate((34, 136), size),
        )
        for got, want in zip(
            with_gradient(x, upstream, grid, "cpu"), with_gradient(x, upstream, grid, "reference"), strict=True
        ):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
