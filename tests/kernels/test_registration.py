"""The operators as citizens of PyTorch: opcheck, torch.compile, export, autocast, no double backward."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fcn_kernels
from fcn_kernels import (
    BilinearGrid,
    conv_transpose_add,
    cross_entropy,
    upsample_add,
    upsample_argmax,
    upsample_cross_entropy,
    upsample_region_sums,
)
from fcn_kernels.loss import LossCall
from fcn_kernels.nn import ConvTransposeAdd, DilatedConv2d
from tests.kernels.conftest import interpreted


def permuted(*shape: int) -> Tensor:
    """Dense, and stored pixel by pixel."""
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("make", [torch.randn, permuted])
def test_opcheck(backend: str, make: Callable[..., Tensor]) -> None:
    ops = torch.ops.fcn_kernels
    n = 1 if interpreted(backend) else 2
    x, skip, target = make(n, 3, 3, 2), make(n, 3, 6, 5), torch.randint(0, 3, (n, 6, 5))
    grid = BilinearGrid.transposed(2, 1, (6, 5)).as_ints()
    torch.library.opcheck(ops.upsample_add.default, (x, skip, grid, backend))
    torch.library.opcheck(ops.upsample_add.default, (x, None, grid, backend))
    torch.library.opcheck(ops.upsample_add_backward.default, (skip, [3, 2], grid, "channels_last", backend))
    weight = torch.randn(3, 1, 4, 4)
    for added in (skip, None):
        torch.library.opcheck(ops.conv_transpose_add.default, (x, weight, added, [6, 5], 2, 1, backend))
    for layout in ("contiguous", "channels_last"):
        args = (skip, weight, [3, 2], layout, 2, 1, backend)
        torch.library.opcheck(ops.conv_transpose_add_backward_x.default, args)
    torch.library.opcheck(ops.conv_transpose_add_backward_weight.default, (skip, x, 4, 2, 1, backend))
    for confidence in (False, True):
        for dtype in (torch.uint8, torch.int64):
            torch.library.opcheck(ops.upsample_argmax.default, (x, grid, confidence, dtype, backend))
    for with_grad in (False, True):
        call = LossCall(x, target, torch.rand(3), torch.rand(n, 6, 5), 255, "mean", 0.1, backend)
        torch.library.opcheck(ops.upsample_cross_entropy.default, (grid, with_grad, *call))
    call = LossCall(x, target, None, None, 255, "none", 0.0, backend)
    torch.library.opcheck(ops.upsample_cross_entropy_pixels.default, (grid, *call))
    options = (grid, 255, False, backend)
    torch.library.opcheck(ops.upsample_region_sums.default, (x, target, *options))
    torch.library.opcheck(ops.upsample_region_sums_backward.default, (x, target, torch.rand(2, n, 3), *options))


def head(x: Tensor, skip: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    fused = upsample_add(x, skip)
    labels = upsample_argmax(fused, size=(target.shape[1], target.shape[2]))
    assert isinstance(labels, Tensor)
    intersection, prediction, counts = upsample_region_sums(fused, target)
    return upsample_cross_entropy(fused, target) - (intersection / (prediction + counts)).mean(), labels


def test_compiles_whole_with_dynamic_sizes() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(head, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for h, w in ((5, 7), (6, 9), (8, 4)):
            x, skip = torch.randn(2, 4, h, w, requires_grad=True), torch.randn(2, 4, 2 * h, 2 * w, requires_grad=True)
            target = torch.randint(0, 4, (2, 16 * h, 16 * w))
            loss, labels = compiled(x, skip, target)
            loss.backward()
            want_loss, want_labels = head(x.detach(), skip.detach(), target)
            torch.testing.assert_close(loss, want_loss)
            assert torch.equal(labels, want_labels)
            grads = torch.autograd.grad(head(x, skip, target)[0], (x, skip))
            torch.testing.assert_close((x.grad, skip.grad), grads)


def test_learned_layers_compile_whole_with_dynamic_sizes() -> None:
    torch._dynamo.reset()
    conv, deconv = DilatedConv2d(3, 4, 3, dilation=2, padding=2, relu=True), ConvTransposeAdd(4, 4, 2, crop=1)
    parameters = [*conv.parameters(), *deconv.parameters()]

    def layers(x: Tensor, skip: Tensor) -> Tensor:
        return deconv(conv(x), skip).square().sum()  # type: ignore[no-any-return]

    compiled = torch.compile(layers, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for h, w in ((5, 7), (6, 9), (8, 4)):
            x, skip = torch.randn(2, 3, h, w), torch.randn(2, 4, 2 * h, 2 * w)
            got, want = compiled(x, skip), layers(x, skip)
            torch.testing.assert_close(got, want)
            grads = [torch.autograd.grad(loss, parameters) for loss in (got, want)]
            torch.testing.assert_close(*grads)


def test_compiles_with_a_grid() -> None:
    torch._dynamo.reset()

    def labels(x: Tensor) -> Tensor:
        return upsample_argmax(x, grid=BilinearGrid.transposed(8, 31, (40, 50)))  # type: ignore[return-value]

    x = torch.randn(1, 5, 12, 13)
    assert torch.equal(torch.compile(labels, fullgraph=True, backend="aot_eager")(x), labels(x))


def test_compiles_with_a_scale_factor_and_dynamic_sizes() -> None:
    torch._dynamo.reset()

    def enlarged(x: Tensor) -> tuple[Tensor, ...]:
        return upsample_add(x, scale_factor=2.3), upsample_add(x, scale_factor=1.5, align_corners=True)

    compiled = torch.compile(enlarged, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for h, w in ((5, 7), (6, 9), (10, 20)):
            x = torch.randn(2, 3, h, w)
            assert all(map(torch.equal, compiled(x), enlarged(x)))


def test_exports_with_dynamic_sizes() -> None:
    class Head(torch.nn.Module):
        def forward(self, x: Tensor, skip: Tensor) -> Tensor:
            fused = upsample_add(x, skip)
            return upsample_argmax(fused, size=(skip.shape[2] * 8, skip.shape[3] * 8))  # type: ignore[return-value]

    h, w = torch.export.Dim("h", min=2, max=64), torch.export.Dim("w", min=2, max=64)
    program = torch.export.export(
        Head(),
        (torch.randn(1, 3, 5, 6), torch.randn(1, 3, 10, 12)),
        dynamic_shapes=({2: h, 3: w}, {2: 2 * h, 3: 2 * w}),
    )
    x, skip = torch.randn(1, 3, 7, 4), torch.randn(1, 3, 14, 8)
    assert torch.equal(program.module()(x, skip), Head()(x, skip))


@pytest.mark.parametrize("which", ["auto", "reference"])
def test_autocast_keeps_half_scores_and_a_float_loss(which: str) -> None:
    conv = torch.nn.Conv2d(3, 4, 1)
    target = torch.randint(0, 4, (2, 48, 48))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = conv(torch.randn(2, 3, 6, 6))
        loss = upsample_cross_entropy(scores, target, backend=which)
    assert scores.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    assert conv.weight.grad is not None


def derivable(backend: str) -> list[Callable[[Tensor], Tensor]]:
    """Calls of every operator with a gradient, of ``[1, 3, 4, 4]``."""
    target, few = torch.randint(0, 3, (1, 8, 8)), torch.randint(0, 3, (1, 4, 4))
    weight, filters = torch.randn(3, 1, 4, 4), torch.randn(2, 3, 1, 1)
    calls: list[Callable[[Tensor], Tensor]] = [
        lambda x: upsample_add(x, size=(8, 8), backend=backend),
        lambda x: conv_transpose_add(x, weight, stride=2, backend=backend),
        lambda x: upsample_cross_entropy(x, target, backend=backend),
        lambda x: upsample_cross_entropy(x, target, reduction="none", backend=backend),
        lambda x: cross_entropy(x, few, backend=backend),
        lambda x: cross_entropy(x, few, reduction="none", backend=backend),
        lambda x: torch.stack(upsample_region_sums(x, target, backend=backend)[:2]),
        lambda x: fcn_kernels.dilated_conv2d(x, filters, backend=backend),
    ]
    return calls


@pytest.mark.parametrize("allow_unused", [False, True])
def test_double_backward_is_refused(backend: str, allow_unused: bool) -> None:
    for call in derivable(backend)[: None if backend != "cpu" else -1]:  # there dilated_conv2d is PyTorch's own
        x = torch.randn(1, 3, 4, 4, requires_grad=True)
        (grad,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
        with pytest.raises(
            RuntimeError, match="has no second derivative; where one is needed, use backend='reference'"
        ):
            torch.autograd.grad(grad.sum(), x, allow_unused=allow_unused)


def test_second_derivatives_through_a_lazy_tensor() -> None:
    class Square(torch.autograd.Function):  # which fuse cannot answer
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return 2 * grad * x

    x = torch.randn(1, 2, 3, 4, requires_grad=True)
    seconds = []
    for context in (contextlib.nullcontext(), fcn_kernels.fuse()):
        with context:
            out = Square.apply(torch.nn.functional.interpolate(x, (6, 8), mode="bilinear")).sum()
        (grad,) = torch.autograd.grad(out, x, create_graph=True)
        seconds.append(torch.autograd.grad(grad.square().sum(), x, allow_unused=True)[0])
    torch.testing.assert_close(*seconds)


def test_other_derivatives_are_those_of_the_reference(backend: str) -> None:
    """Forward mode and torch.func, though no input is marked as requiring a gradient: never silently zero."""
    x, direction = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    for chosen in derivable(backend):
        with torch.autograd.forward_ad.dual_level(), pytest.raises(ValueError, match="use backend='reference'"):
            chosen(torch.autograd.forward_ad.make_dual(x, direction))
        with pytest.raises(ValueError, match=r"torch\.func transforms plain PyTorch only; use backend='reference'"):
            torch.func.grad(lambda x, call=chosen: call(x).sum())(x)
    leaf = x.clone().requires_grad_()
    for call in derivable("auto"):
        (want,) = torch.autograd.grad(call(leaf).sum(), leaf)
        torch.testing.assert_close(torch.func.grad(lambda x, call=call: call(x).sum())(x), want)
        _, along = torch.func.jvp(lambda x, call=call: call(x).sum(), (x,), (direction,))
        torch.testing.assert_close(along, (want * direction).sum())
        several = torch.randn(3, 1, 3, 4, 4)
        torch.testing.assert_close(torch.func.vmap(call)(several), torch.stack([call(x) for x in several]))


def label_map(x: Tensor) -> Tensor:
    labels = upsample_argmax(x, size=(2 * x.shape[2], 2 * x.shape[3]))
    assert isinstance(labels, Tensor)
    return labels


@pytest.mark.filterwarnings("ignore")  # tracing warns of every size that is looked at
def test_traces_for_any_size(backend: str) -> None:
    traced = torch.jit.trace(label_map, torch.randn(1, 3, 4, 5))
    x = torch.randn(2, 3, 7, 6)
    assert torch.equal(traced(x), label_map(x))
    for call in derivable("auto"):
        x = torch.randn(1, 3, 4, 4)
        torch.testing.assert_close(torch.jit.trace(call, x)(2 * x), call(2 * x))
    with pytest.raises(ValueError, match="record plain PyTorch only; use backend='reference'"):
        torch.jit.trace(derivable(backend)[0], torch.randn(1, 3, 4, 4))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
def test_export_to_onnx_takes_the_reference(dynamo: bool) -> None:
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    if dynamo:
        pytest.importorskip("onnxscript")

    class Module(torch.nn.Module):
        def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.call = call

        def forward(self, x: Tensor) -> Tensor:
            return self.call(x)

    x = torch.randn(1, 3, 4, 4)
    for call in (label_map, *derivable("auto"))[: 2 if dynamo else None]:  # seconds each
        file = io.BytesIO()
        options: dict[str, Any] = {} if dynamo else {"opset_version": 17}
        torch.onnx.export(Module(call), (x,), file, input_names=["x"], dynamo=dynamo, verbose=False, **options)
        (got,) = evaluator(file.getvalue()).run(None, {"x": (2 * x).numpy()})
        torch.testing.assert_close(torch.from_numpy(got), call(2 * x))


@pytest.mark.parametrize("device", ["meta"])
def test_devices_without_kernels_get_the_reference(device: str) -> None:
    x = torch.randn(1, 3, 4, 4, device=device)
    with torch.device(device):
        for call in derivable("auto"):
            assert call(x).device.type == device
    assert label_map(x).shape == (1, 8, 8)
    with pytest.raises(ValueError, match="backend 'cpu' cannot run: it runs on cpu tensors, and these are on meta"):
        upsample_argmax(x, size=(8, 8), backend="cpu")


@pytest.mark.parametrize("loss", [cross_entropy, upsample_cross_entropy])
def test_backward_again_and_of_a_scaled_loss(backend: str, loss: Callable[..., Tensor]) -> None:
    x = torch.randn(2, 3, 5, 6, requires_grad=True)
    target = torch.randint(0, 3, (2, 5, 6))
    once = loss(x, target, backend=backend)
    (right,) = torch.autograd.grad(loss(x, target, backend="reference"), x)
    for times in (1, 2, 3):  # x.grad must not be what the loss keeps for the next backward
        once.backward(retain_graph=True)
        torch.testing.assert_close(x.grad, times * right)
    (scaled,) = torch.autograd.grad(-2.5 * loss(x, target, backend=backend), x)
    torch.testing.assert_close(scaled, -2.5 * right)


@pytest.mark.parametrize("loss", [cross_entropy, upsample_cross_entropy])
def test_a_gradient_may_be_changed_past_autograd(backend: str, loss: Callable[..., Tensor]) -> None:
    x, target = torch.randn(2, 3, 5, 6, requires_grad=True), torch.randint(0, 3, (2, 5, 6))
    once = loss(x, target, backend=backend)
    (right,) = torch.autograd.grad(loss(x, target, backend="reference"), x)
    for factor in (1.0, 1.0, 2.0, 1.0):
        (grad,) = torch.autograd.grad(factor * once, x, retain_graph=True)
        torch.testing.assert_close(grad, factor * right)
        grad.data.fill_(77)


def test_no_input_is_written_to(backend: str) -> None:
    x, skip = torch.randn(1, 3, 4, 4, requires_grad=True), torch.randn(1, 3, 9, 9, requires_grad=True)
    target = torch.randint(0, 3, (1, 32, 32))
    weight = torch.randn(3, 1, 3, 3, requires_grad=True)
    before = [t.detach().clone() for t in (x, skip, target, weight)]
    upsample_add(x, skip, backend=backend).sum().backward()
    conv_transpose_add(x, weight, skip, stride=2, backend=backend).sum().backward()
    upsample_cross_entropy(x, target, backend=backend).backward()
    upsample_argmax(x, size=(32, 32), backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(before, (x, skip, target, weight), strict=True))


def test_public_names() -> None:
    assert all(hasattr(fcn_kernels, name) for name in fcn_kernels.__all__)
