"""dilated_conv2d: against rarefied filters and a split into phases, neither of which dilates anything."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import dilated_conv2d, rarefy
from fcn_kernels.backend import implementation
from tests.kernels.conftest import RUNNABLE, emulated
from tests.strategies import LAYOUTS, assert_as_good_as_torch, assert_fences_hold, dtypes_of, fenced, with_layout


def conv_dtypes_of(backend: str) -> tuple[torch.dtype, ...]:
    """Those that ``backend`` can multiply here: Triton's interpreter has no products of bfloat16, only a GPU has."""
    interpreted = backend == "triton" and emulated(backend)
    return tuple(dtype for dtype in dtypes_of(backend) if not (interpreted and dtype == torch.bfloat16))


def space_to_batch(x: Tensor, weight: Tensor, dilation: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Each of the d x d phases of the padded input, convolved densely on its own."""
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    reach = [dilation[axis] * (weight.shape[2 + axis] - 1) for axis in (0, 1)]
    out = x.new_full((x.shape[0], weight.shape[0], x.shape[2] - reach[0], x.shape[3] - reach[1]), torch.nan)
    for i in range(min(dilation[0], out.shape[2])):
        for j in range(min(dilation[1], out.shape[3])):
            out[:, :, i :: dilation[0], j :: dilation[1]] = F.conv2d(
                x[:, :, i :: dilation[0], j :: dilation[1]], weight
            )
    return out


@given(data=st.data())
def test_is_a_dense_convolution_of_every_phase_and_of_the_rarefied_filter(backend: str, data: st.DataObject) -> None:
    draw = data.draw
    dtype = torch.float64 if torch.float64 in dtypes_of(backend) else torch.float32
    dilation, padding = (
        (draw(st.integers(1, 5)), draw(st.integers(1, 5))),
        (draw(st.integers(0, 6)), draw(st.integers(0, 6))),
    )
    k = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    least = [max(1, dilation[axis] * (k[axis] - 1) + 1 - 2 * padding[axis]) for axis in (0, 1)]
    size = [low + draw(st.integers(0, 12)) for low in least]
    x = torch.randn(draw(st.integers(0, 3)), draw(st.integers(1, 5)), *size, dtype=dtype)
    x = with_layout(x, draw(st.sampled_from(LAYOUTS)))
    weight = torch.randn(draw(st.integers(1, 6)), x.shape[1], *k, dtype=dtype)
    bias = torch.randn(weight.shape[0], dtype=dtype) if draw(st.booleans()) else None
    relu = draw(st.booleans())
    want = space_to_batch(x, weight, dilation, padding)
    torch.testing.assert_close(F.conv2d(x, rarefy(weight, dilation), padding=padding), want)
    want = want if bias is None else want + bias[:, None, None]
    want = want.clamp(min=0) if relu else want
    for which in (backend, "reference"):
        got = dilated_conv2d(x, weight, bias, dilation=dilation, padding=padding, relu=relu, backend=which)
        torch.testing.assert_close(got, want)


@given(data=st.data())
def test_forward_and_backward_in_every_dtype(backend: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(conv_dtypes_of(backend)))
    dilation, relu = data.draw(st.sampled_from((1, 2, 3, 12))), data.draw(st.booleans())
    x = with_layout(torch.randn(2, 5, 9, 11, dtype=torch.float64).to(dtype), data.draw(st.sampled_from(LAYOUTS)))
    tensors = [x, torch.randn(4, 5, 3, 3).to(dtype), torch.randn(4).to(dtype)]
    upstream = torch.randn(2, 4, 9, 11).to(dtype)
    # Which side of zero ReLU's argument falls on must not hang on rounding.
    exact = dilated_conv2d(*(t.double() for t in tensors), dilation=dilation, padding=dilation)
    upstream *= exact.abs() > 0.1

    def run(which: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [t.detach().to(dtype).requires_grad_() for t in tensors]
        out = dilated_conv2d(*leaves, dilation=dilation, padding=dilation, relu=relu, backend=which)
        return out.detach(), *torch.autograd.grad(out, leaves, upstream.to(dtype))

    ours, torchs, oracle = run(backend, dtype), run("reference", dtype), run("reference", torch.float64)
    for name, a, b, c in zip(("out", "grad x", "grad weight", "grad bias"), ours, torchs, oracle, strict=True):
        assert a.dtype == dtype
        # Sums may cancel: what is rounded is as large as a typical sum of the terms.
        assert_as_good_as_torch(a, b, c, name, scale=1.0)


@pytest.mark.parametrize("dilation", [1, 3])
def test_returns_channels_last(backend: str, dilation: int) -> None:
    for dtype in conv_dtypes_of(backend):
        x, weight = torch.randn(2, 3, 8, 9).to(dtype), torch.randn(4, 3, 3, 3).to(dtype)
        out = dilated_conv2d(x, weight, dilation=dilation, backend=backend)
        assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_many_channels(backend: str, dtype: torch.dtype) -> None:
    """Several blocks of channels of either kind."""
    tensors = [torch.randn(s).to(dtype) for s in ((1, 40, 7, 9), (70, 40, 2, 2), (70,))]
    upstream = torch.randn(1, 70, 7, 9).to(dtype)

    def run(which: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [t.detach().to(dtype).requires_grad_() for t in tensors]
        out = dilated_conv2d(*leaves, dilation=(4, 6), padding=(2, 3), backend=which)
        return out.detach(), *torch.autograd.grad(out, leaves, upstream.to(dtype))

    results = run(backend, dtype), run("reference", dtype), run("reference", torch.float64)
    for ours, torchs, oracle in zip(*results, strict=True):
        assert_as_good_as_torch(ours, torchs, oracle, "channels")
    assert all(torch.equal(a, b) for a, b in zip(results[0], run(backend, dtype), strict=True))


def test_triton_leaves_out_taps_on_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    if "triton" not in RUNNABLE or not emulated("triton"):
        pytest.skip("Triton's interpreter counts")
    from triton.runtime.interpreter import InterpreterBuilder

    calls, dot = [], InterpreterBuilder.create_dot
    monkeypatch.setattr(InterpreterBuilder, "create_dot", lambda *args: calls.append(1) or dot(*args))
    x, weight, size = torch.randn(1, 4, 24, 24), torch.randn(4, 4, 3, 3), 24
    dilated_conv2d(x, weight, dilation=18, padding=18, backend="triton")
    tiles = -(-size * size // 64)
    # Of each axis 6 of 24 pixels meet each outer tap: 1 + 2 x 1/4 taps a pixel, and somewhat more a tile.
    assert 1.5**2 * tiles <= len(calls) <= 2**2 * tiles


def test_offsets_of_64_bits(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend != "triton":
        pytest.skip("no switch to force")
    tensors = [torch.randn(s, requires_grad=True) for s in ((2, 3, 6, 7), (5, 3, 3, 3), (5,))]

    def run() -> tuple[Tensor, ...]:
        out = dilated_conv2d(*tensors, dilation=2, padding=2, backend=backend)
        return out, *torch.autograd.grad(out.square().sum(), tensors)

    narrow = run()
    monkeypatch.setattr("fcn_kernels.launch.force_wide", True)
    assert all(torch.equal(a, b) for a, b in zip(narrow, run(), strict=True))


def test_gradcheck(backend: str) -> None:
    if torch.float64 not in dtypes_of(backend):
        pytest.skip("no float64, in which numerical derivatives are exact enough")
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((1, 2, 5, 6), (3, 2, 2, 3), (3,))]
    for which in (backend, "reference"):
        for relu in (False, True):
            assert torch.autograd.gradcheck(
                lambda *t, b=which, r=relu: dilated_conv2d(*t, dilation=(3, 2), padding=(1, 2), relu=r, backend=b),
                tensors,
            )


def test_inputs_are_left_as_they_are(backend: str) -> None:
    tensors = [torch.randn(1, 2, 5, 5), torch.randn(2, 2, 1, 1), torch.randn(2)]
    before = [t.clone() for t in tensors]
    leaves = [t.requires_grad_() for t in tensors]
    dilated_conv2d(*leaves, relu=True, backend=backend).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_autocast_casts(backend: str) -> None:
    x, weight = torch.randn(1, 3, 6, 6), torch.randn(2, 3, 3, 3, requires_grad=True)
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        for given in (x, x.bfloat16()):
            out = dilated_conv2d(given, weight, torch.randn(2), backend=backend)
            assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def kernels_of(backend: str) -> Any:
    if backend == "cpu":
        pytest.skip("the library's convolution, not ours")
    return implementation("dilated_conv2d", backend)


def test_kernels_write_every_element_and_no_other(backend: str) -> None:
    kernels, options = kernels_of(backend), ([2, 3], [1, 2])
    for dtype in conv_dtypes_of(backend):
        x, weight, grad = (
            torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
            for shape in ((2, 5, 7, 9), (6, 5, 3, 2), (2, 6, 5, 10))
        )
        outputs, buffers = zip(*(fenced(t.shape, dtype, "channels_last") for t in (grad, x, weight)), strict=True)
        kernels.dilated_conv2d(x, weight, None, False, *options, outputs[0])
        kernels.dilated_conv2d_backward_x(grad, weight, *options, outputs[1])
        kernels.dilated_conv2d_backward_weight(grad, x, *options, outputs[2])
        for output, buffer in zip(outputs, buffers, strict=True):
            assert_fences_hold(buffer)
            assert bool(output.isfinite().all())


@pytest.mark.parametrize("batch", [0, 2])
def test_opcheck(backend: str, batch: int) -> None:
    kernels_of(backend)
    ops = torch.ops.fcn_kernels
    for layout in ("contiguous", "channels_last") if batch else ("contiguous",):
        x, grad, weight = (
            with_layout(torch.randn(shape), layout) for shape in ((batch, 3, 6, 7), (batch, 4, 6, 7), (4, 3, 3, 3))
        )
        options = ([2, 2], [2, 2], backend)
        bias = torch.randn(4) if batch else None
        torch.library.opcheck(ops.dilated_conv2d.default, (x, weight, bias, True, *options))
        torch.library.opcheck(ops.dilated_conv2d_backward_x.default, (grad, weight, [6, 7], *options))
        torch.library.opcheck(ops.dilated_conv2d_backward_weight.default, (grad, x, [3, 3], *options))


def test_kernels_have_no_second_derivative_and_say_so(backend: str) -> None:
    kernels_of(backend)
    x, weight = torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(3, 2, 3, 3, requires_grad=True)
    for grad in torch.autograd.grad(dilated_conv2d(x, weight, backend=backend).sum(), (x, weight), create_graph=True):
        with pytest.raises(RuntimeError, match="dilated_conv2d has no second derivative"):
            grad.sum().backward()


def test_kernels_compile_whole_with_dynamic_sizes(backend: str) -> None:
    kernels_of(backend)
    torch._dynamo.reset()
    weight, bias = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(4, requires_grad=True)

    def layer(x: Tensor) -> Tensor:
        return dilated_conv2d(x, weight, bias, dilation=2, padding=2, relu=True, backend=backend).square().sum()

    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for h, w in ((5, 7), (6, 9), (8, 4)):
            x = torch.randn(2, 3, h, w)
            grads = [torch.autograd.grad(f(x), (weight, bias)) for f in (compiled, layer)]
            torch.testing.assert_close(*grads)
