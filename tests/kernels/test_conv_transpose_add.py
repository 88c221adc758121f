"""conv_transpose_add: every backend against the reference in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import BilinearGrid, bilinear_kernel, conv_transpose_add, upsample_add
from fcn_kernels.backend import implementation
from tests.kernels.conftest import classes_of, emulated, images_of, interpreted, side_of
from tests.strategies import (
    LAYOUTS,
    assert_as_good_as_torch,
    assert_fences_hold,
    dtypes_of,
    far_apart,
    fenced,
    scores,
    with_layout,
)

KINDS = ("normal", "constant", "huge")
DTYPES = (torch.float32, torch.bfloat16)


@st.composite
def geometries(draw: st.DrawFn, input_size: tuple[int, int], backend: str) -> tuple[int, int, int, tuple[int, int]]:
    """Kernel size, stride, crop and a size within what the input feeds: kernels smaller than the stride included."""
    stride = draw(st.sampled_from((1, 2, 2, 3, 4, 5) if emulated(backend) else (1, 2, 2, 3, 4, 5, 8, 17)))
    k = draw(st.one_of(st.just(2 * stride), st.integers(1, 3 * stride + 2)))
    full = [stride * (size - 1) + k for size in input_size]
    crop = draw(st.integers(0, min(full) - 1))
    whole = draw(st.booleans())
    largest = [min(axis - crop, side_of(backend)) if interpreted(backend) else axis - crop for axis in full]
    height, width = (axis if whole else draw(st.integers(1, axis)) for axis in largest)
    return k, stride, crop, (height, width)


def filters(x: Tensor, k: int) -> Tensor:
    return torch.randn(x.shape[1], 1, k, k, dtype=torch.float64).to(x.dtype)


def run(
    which: str, dtype: torch.dtype, tensors: list[Tensor], upstream: Tensor, options: dict[str, object]
) -> tuple[Tensor, ...]:
    """Result and gradients, computed in ``dtype``; tensors that have it keep their layout."""
    leaves = [(t if t.dtype == dtype else t.to(dtype)).detach().requires_grad_() for t in tensors]
    out = conv_transpose_add(*leaves, **options, backend=which)  # type: ignore[arg-type]
    upstream = upstream if upstream.dtype == dtype else upstream.to(dtype)
    return out.detach(), *torch.autograd.grad(out, leaves, upstream)


@given(data=st.data())
def test_forward_and_backward(backend: str, data: st.DataObject) -> None:
    x = data.draw(
        scores(max_classes=classes_of(backend), max_images=images_of(backend), kinds=KINDS, dtypes=dtypes_of(backend))
    )
    k, stride, crop, size = data.draw(geometries((x.shape[2], x.shape[3]), backend))
    shape = (*x.shape[:2], *size)
    layouts = [data.draw(st.sampled_from(LAYOUTS)) for _ in range(2)]
    skip, upstream = (with_layout(torch.randn(shape, dtype=torch.float64).to(x.dtype), layout) for layout in layouts)
    tensors = [x, filters(x, k)] + ([skip] if data.draw(st.booleans()) else [])
    options: dict[str, object] = {"stride": stride, "crop": crop, "size": size}
    ours = run(backend, x.dtype, tensors, upstream, options)
    torchs = run("reference", x.dtype, tensors, upstream, options)
    oracle = run("reference", torch.float64, tensors, upstream, options)
    # What a sum may be off by grows with what is summed: products of |values|, the most that can meet in one place.
    largest = [float(t.abs().max()) if t.numel() else 0.0 for t in (x, tensors[1], upstream)]
    meeting = -(-k // stride)
    scales = (
        meeting * largest[0] * largest[1],
        min(k, size[0]) * min(k, size[1]) ** 0.5 * largest[1] * largest[2],
        (x.shape[0] * min(x[0, 0].numel() if x.shape[0] else 0, size[0] * size[1])) ** 0.5 * largest[0] * largest[2],
        0.0,
    )
    names = ("out", "grad x", "grad weight", "grad skip")
    for name, a, b, c, scale in zip(names, ours, torchs, oracle, scales, strict=False):
        assert a.dtype == x.dtype
        assert_as_good_as_torch(a, b, c, name, scale)


@given(data=st.data())
def test_writes_every_element_and_no_other(backend: str, data: st.DataObject) -> None:
    x = data.draw(
        scores(
            max_classes=classes_of(backend),
            max_images=images_of(backend),
            dtypes=DTYPES,
            kinds=("normal",),
            min_images=1,
        )
    )
    k, stride, crop, size = data.draw(geometries((x.shape[2], x.shape[3]), backend))
    layout = data.draw(st.sampled_from(("contiguous", "channels_last")))
    shape, weight = (*x.shape[:2], *size), filters(x, k)
    kernels = implementation("conv_transpose_add", backend)
    out, buffer = fenced(shape, x.dtype, layout)
    kernels.conv_transpose_add(x, weight, None, stride, crop, out)
    assert_fences_hold(buffer)
    torch.testing.assert_close(
        out, conv_transpose_add(x, weight, stride=stride, crop=crop, size=size, backend="reference")
    )
    grad = with_layout(torch.randn(shape).to(x.dtype), layout)
    grad_x, buffer = fenced(tuple(x.shape), x.dtype, layout)
    kernels.conv_transpose_add_backward_x(grad, weight, stride, crop, grad_x)
    assert_fences_hold(buffer)
    assert bool(grad_x.isfinite().all())
    grad_weight, buffer = fenced(tuple(weight.shape), x.dtype)
    kernels.conv_transpose_add_backward_weight(grad, x, stride, crop, grad_weight)
    assert_fences_hold(buffer)
    assert bool(grad_weight.isfinite().all())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_reads_no_number_outside_its_inputs(backend: str, layout: str) -> None:
    """What lies around the inputs, NaN here, must not reach a result."""
    n, c, h = (1, 2, 3) if interpreted(backend) else (2, 5, 6)
    for k, stride in ((4, 2), (3, 2), (5, 5), (2, 3), (7, 1)):
        x = fenced_input((n, c, h, 19), layout)
        weight = fenced_input((c, 1, k, k), "contiguous")
        full = ((h - 1) * stride + k, 18 * stride + k)
        grad = fenced_input((n, c, full[0] - 1, full[1] - 1), layout)
        got = run(backend, torch.float32, [x, weight], grad, {"stride": stride, "crop": 1})
        want = run("reference", torch.float32, [x, weight], grad, {"stride": stride, "crop": 1})
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def fenced_input(shape: tuple[int, ...], layout: str) -> Tensor:
    x, buffer = fenced(shape, torch.float32, layout)
    buffer.fill_(torch.nan)
    return x.copy_(torch.randn(shape))


def best_dtype(backend: str) -> torch.dtype:
    return torch.float64 if torch.float64 in dtypes_of(backend) else torch.float32


def test_is_the_plain_expression(backend: str) -> None:
    dtype = best_dtype(backend)
    x, weight, skip = (torch.randn(s, dtype=dtype) for s in ((2, 3, 5, 6), (3, 1, 7, 7), (2, 3, 9, 11)))
    want = F.conv_transpose2d(x, weight, stride=3, groups=3)[:, :, 4:13, 4:15] + skip
    torch.testing.assert_close(conv_transpose_add(x, weight, skip, stride=3, crop=4, backend=backend), want)
    want = F.conv_transpose2d(x, weight, stride=3, groups=3)[:, :, 4:, 4:]
    torch.testing.assert_close(conv_transpose_add(x, weight, stride=3, crop=4, backend=backend), want)


@pytest.mark.parametrize(("stride", "crop"), [(2, 5), (8, 31), (32, 19), (3, 0)])
def test_with_the_bilinear_kernel_is_upsample_add(backend: str, stride: int, crop: int) -> None:
    """FCN's own strides and crops: the two operators agree where the filter is what the other has built in."""
    dtype = best_dtype(backend)
    c = min(4, classes_of(backend) // 2)
    x = torch.randn(1, c, 9, 10, dtype=dtype)
    skip = torch.randn(1, c, 8 * stride - crop % stride, 7 * stride, dtype=dtype)[:, :, : 10 * stride - crop]
    k = 2 * stride - stride % 2
    weight = bilinear_kernel(k, dtype=dtype).to(x.device).expand(c, 1, k, k)
    got = conv_transpose_add(x, weight, skip, stride=stride, crop=crop, backend=backend)
    grid = BilinearGrid.transposed(stride, crop, (skip.shape[2], skip.shape[3]))
    torch.testing.assert_close(got, upsample_add(x, skip, grid=grid, backend=backend))


def test_offsets_pass_2_to_the_31(backend: str) -> None:
    x, weight, skip = (torch.randn(shape).bfloat16() for shape in ((2, 3, 5, 8), (3, 1, 4, 4), (2, 3, 10, 16)))
    options: dict[str, object] = {"stride": 2, "crop": 1}
    near = run(backend, x.dtype, [x, weight, skip], skip, options)
    far = run(backend, x.dtype, [far_apart(x), weight, far_apart(skip)], far_apart(skip), options)
    assert all(torch.equal(a, b) for a, b in zip(near, far, strict=True))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_layout_follows_skip(backend: str, layout: str) -> None:
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    weight = torch.randn(4, 1, 2, 2)
    skip = torch.randn(2, 4, 6, 8).contiguous(memory_format=memory_format)
    out = conv_transpose_add(torch.randn(2, 4, 3, 4), weight, skip, stride=2, backend=backend)
    assert out.is_contiguous(memory_format=memory_format)
    x = torch.randn(2, 4, 3, 4).contiguous(memory_format=memory_format)
    assert conv_transpose_add(x, weight, stride=2, backend=backend).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradcheck(backend: str, layout: str) -> None:
    if torch.float64 not in dtypes_of(backend):
        pytest.skip("no float64, in which numerical derivatives are exact enough")
    for k, stride, crop, size in ((4, 2, 1, (7, 8)), (5, 3, 2, (9, 11)), (2, 3, 0, (8, 11)), (3, 1, 4, (1, 2))):
        x = with_layout(torch.randn(2, 2, 3, 4, dtype=torch.float64), layout).requires_grad_()
        weight = torch.randn(2, 1, k, k, dtype=torch.float64, requires_grad=True)
        skip = with_layout(torch.randn(2, 2, *size, dtype=torch.float64), layout).requires_grad_()
        for which in (backend, "reference"):
            assert torch.autograd.gradcheck(
                lambda a, b, c, s=stride, o=crop, w=which: conv_transpose_add(a, b, c, stride=s, crop=o, backend=w),
                (x, weight, skip),
            )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_repeats_bit_for_bit_whatever_the_threads(backend: str, layout: str) -> None:
    height, width = (4, 35) if interpreted(backend) else (9, 35) if emulated(backend) else (65, 90)
    c = min(10, classes_of(backend))
    tensors = [with_layout(torch.randn(2, c, height, width), layout), torch.randn(c, 1, 4, 4)]
    upstream = with_layout(torch.randn(2, c, 2 * height, 2 * width), layout)
    options: dict[str, object] = {"stride": 2, "crop": 1, "size": (2 * height, 2 * width)}
    first = run(backend, torch.float32, tensors, upstream, options)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3) if backend == "cpu" else (1,):
            torch.set_num_threads(count)
            for a, b in zip(first, run(backend, torch.float32, tensors, upstream, options), strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)


def test_large_maps(backend: str) -> None:
    """Large enough for stores that bypass the cache; sums over many pixels stay as exact as PyTorch's."""
    height, width = (6, 40) if interpreted(backend) else (24, 40) if emulated(backend) else (128, 160)
    c = classes_of(backend) if emulated(backend) else 40
    shape = (2, c, 2 * height, 2 * width)
    tensors = [torch.randn(2, c, height, width), torch.randn(c, 1, 4, 4), torch.randn(shape)]
    upstream = torch.randn(shape)
    options: dict[str, object] = {"stride": 2, "crop": 1}
    ours = run(backend, torch.float32, tensors, upstream, options)
    torchs = run("reference", torch.float32, tensors, upstream, options)
    oracle = run("reference", torch.float64, tensors, upstream, options)
    for name, a, b, c in zip(("out", "grad x", "grad weight", "grad skip"), ours, torchs, oracle, strict=True):
        assert_as_good_as_torch(a, b, c, name)


def test_every_instruction_set_agrees(isa: str) -> None:
    for layout in ("contiguous", "channels_last"):
        for k, stride, crop, size in (
            (4, 2, 5, (60, 256)),
            (16, 8, 31, (200, 900)),
            (6, 3, 2, (90, 300)),
            (3, 5, 0, (9, 9)),
        ):
            for dtype, rtol in (
                (torch.float32, 2e-5),
                (torch.float64, 1e-12),
                (torch.bfloat16, 2e-2),
                (torch.float16, 2e-3),
            ):
                tensors = [with_layout(torch.randn(1, 5, 34, 136).to(dtype), layout), torch.randn(5, 1, k, k).to(dtype)]
                upstream = with_layout(torch.randn(1, 5, *size).to(dtype), layout)
                options: dict[str, object] = {"stride": stride, "crop": crop, "size": size}
                got = run("cpu", dtype, tensors, upstream, options)
                want = run("reference", torch.float64, tensors, upstream, options)
                for a, b in zip(got, want, strict=True):
                    torch.testing.assert_close(a.double(), b, rtol=rtol, atol=rtol * float(b.abs().max()))


def test_autograd_does_only_what_is_asked(backend: str) -> None:
    x, weight = torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(2, 1, 4, 4)
    conv_transpose_add(x, weight, stride=2, backend=backend).sum().backward()
    assert x.grad is not None
    assert not conv_transpose_add(x.detach(), weight, stride=2, backend=backend).requires_grad
