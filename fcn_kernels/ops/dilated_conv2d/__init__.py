"""Dilated convolution with bias and ReLU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...autograd import first_order_only, recorded
from ...backend import choose, define_op, implementation
from ...checks import check_pair, check_same, check_scores
from ...layout import empty_map
from .choice import may_pay, product_pays
from .product import dilated_conv2d as dilated_conv2d_product
from .reference import dilated_conv2d as dilated_conv2d_reference


def dilated_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    relu: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Convolution of stride 1 with a rarefied filter (CVPR 2015, section 3.2), bias and ReLU.

    Replaces ``F.conv2d(x, weight, bias, dilation=dilation, padding=padding).relu()``. Backends ``"cuda"`` and
    ``"triton"`` have kernels, which skip filter taps that fall on padding only. Backend ``"cpu"`` has kernels for
    float32: filters of 3 x 3 taps by Winograd's algorithm F(4x4, 3x3), in every pass, convolutions of few input
    channels, and large filters on small maps as one matrix product; what those are slower at (``choice``), and every
    other dtype, is PyTorch's convolution (oneDNN) in channels_last. Winograd's algorithm rounds more than a plain
    sum: in float32 up to 3e-6 (root mean square; a plain sum 3e-7). Where its result is not finite, PyTorch computes
    it. Without gradients the transformed filters are kept, four times the memory of the filters, for as long as
    ``weight`` lives and does not change (in place, or by another tensor in its place; writing through ``.data`` goes
    unnoticed). All but the reference compute and answer in channels_last: NCHW tensors are copied first, but for the
    kernels for CPUs, which read any layout.

    Args:
        x: ``[N, I, H, W]``, float32, bfloat16, float16 or float64.
        weight: ``[O, I, k, l]`` of the same dtype.
        bias: ``[O]`` of the same dtype, or None.
        dilation: input pixels from one tap to the next: one number, or (rows, columns).
        padding: zeros around the input: one number, or (rows, columns).
        relu: set negative results to 0.
        backend: ``"reference"``, ``"cpu"``, ... or None for the default (``use_backend``).

    Returns ``[N, O, H + 2 * padding - dilation * (k - 1), ...]`` in the dtype of ``x`` (under autocast, in its dtype).
    Differentiable in ``x``, ``weight`` and ``bias``, by ``"cuda"`` and ``"triton"`` once. Raises ``ValueError`` or
    ``TypeError`` naming the argument that is wrong.
    """
    dilation = check_pair("dilated_conv2d", "dilation", dilation, 1)
    padding = check_pair("dilated_conv2d", "padding", padding, 0)
    check_scores("dilated_conv2d", "x", x)
    device = x.device.type
    # Autocast casts what needs it.
    same_dtype = not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device))
    check_same("dilated_conv2d", "weight", weight, "x", x, dtype=same_dtype)
    if weight.dim() != 4 or weight.shape[1] != x.shape[1] or 0 in weight.shape:
        raise ValueError(f"dilated_conv2d: weight must be [O, {x.shape[1]}, k, l], got shape {tuple(weight.shape)}")
    if bias is not None:
        check_same("dilated_conv2d", "bias", bias, "x", x, dtype=same_dtype)
        if bias.shape != weight.shape[:1]:
            raise ValueError(
                f"dilated_conv2d: bias must have shape [{weight.shape[0]}], one per filter, got {tuple(bias.shape)}"
            )
    reach = [dilation[axis] * (weight.shape[2 + axis] - 1) + 1 for axis in (0, 1)]
    padded = [x.shape[2 + axis] + 2 * padding[axis] for axis in (0, 1)]
    if reach[0] > padded[0] or reach[1] > padded[1]:
        raise ValueError(
            f"dilated_conv2d: the filter spans {tuple(reach)} pixels with dilation {dilation}, and the input has only "
            f"{tuple(padded)} with padding {padding}"
        )
    backend = choose("dilated_conv2d", backend, x)
    if backend == "reference":
        return dilated_conv2d_reference(x, weight, bias, relu, dilation, padding)
    if backend == "cpu" and same_dtype and product_pays(x, weight, padding, dilation):
        return dilated_conv2d_product(x, weight, bias, relu, dilation, padding)
    if backend == "cpu" and not (may_pay(weight) and same_dtype):
        # Where the library has no channels_last kernel (float64, say) it answers in NCHW.
        return _channels_last(dilated_conv2d_reference(_channels_last(x), weight, bias, relu, dilation, padding))
    if not same_dtype:  # autocast knows the library's convolution, not ours
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    options = (x, weight, bias, relu, list(dilation), list(padding), backend)
    result: Tensor = _DilatedConv2d.apply(*options) if recorded(x, weight, bias) else _forward(*options, True)
    return result


class _DilatedConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, *options: Any) -> Tensor:
        out: Tensor = _forward(x, weight, bias, relu, *options)
        ctx.options = options
        ctx.save_for_backward(x, weight, out if relu else None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, out = ctx.saved_tensors
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        if ctx.options[-1] == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # The library's gradients, which have gradients.
            dilation, padding, _ = ctx.options
            shape, wanted = [weight.shape[0]], list(ctx.needs_input_grad[:3])
            options = ([1, 1], padding, dilation, False, [0, 0], 1, wanted)
            return *torch.ops.aten.convolution_backward(grad, x, weight, shape, *options), *(None,) * 4
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = _backward_x(grad, weight, x.shape[2:], *ctx.options)
            grad_x = first_order_only("dilated_conv2d", grad_x, grad, weight)
        if ctx.needs_input_grad[1]:
            grad_weight = _backward_weight(grad, x, weight.shape[2:], *ctx.options)
            grad_weight = first_order_only("dilated_conv2d", grad_weight, grad, x)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, *(None for _ in ctx.options)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


# ``options`` are what the op's schema ends in: the geometry, which kernels take, and the backend. Kernels see dense
# channels_last tensors, filters too, with at least one element (strides of axes of size 1 say nothing), and write into
# such tensors. Those for CPUs read any strides. ``keep``: no gradient is asked for, and so the filters will not change.


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, *options: Any) -> Tensor:
    out = _fake(x, weight, bias, relu, *options)
    dilation, padding, backend, *keep = options
    if out.numel() > 0:
        kernels = implementation("dilated_conv2d", backend)
        bias = None if bias is None else bias.contiguous()
        if backend == "cpu":
            kernels.dilated_conv2d(x, weight, bias, relu, dilation, padding, out, *keep)
        else:
            kernels.dilated_conv2d(_channels_last(x), _channels_last(weight), bias, relu, dilation, padding, out)
    return out


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    relu: bool,
    dilation: list[int],
    padding: list[int],
    backend: str,
    keep: bool = False,
) -> Tensor:
    height, width = (
        x.shape[2 + axis] + 2 * padding[axis] - dilation[axis] * (weight.shape[2 + axis] - 1) for axis in (0, 1)
    )
    return empty_map(x, (x.shape[0], weight.shape[0], height, width), "channels_last")


def _run_backward_x(grad: Tensor, weight: Tensor, size: list[int], *options: Any) -> Tensor:
    grad_x = _fake_backward_x(grad, weight, size)
    *geometry, backend = options
    if grad_x.numel() > 0:
        implementation("dilated_conv2d", backend).dilated_conv2d_backward_x(
            _channels_last(grad), _channels_last(weight), *geometry, grad_x
        )
    return grad_x


def _fake_backward_x(grad: Tensor, weight: Tensor, size: list[int], *options: Any) -> Tensor:
    return empty_map(grad, (grad.shape[0], weight.shape[1], size[0], size[1]), "channels_last")


def _run_backward_weight(grad: Tensor, x: Tensor, kernel_size: list[int], *options: Any) -> Tensor:
    grad_weight = _fake_backward_weight(grad, x, kernel_size)
    *geometry, backend = options
    if grad.numel() == 0:
        return grad_weight.zero_()
    implementation("dilated_conv2d", backend).dilated_conv2d_backward_weight(
        _channels_last(grad), _channels_last(x), *geometry, grad_weight
    )
    return grad_weight


def _fake_backward_weight(grad: Tensor, x: Tensor, kernel_size: list[int], *options: Any) -> Tensor:
    return empty_map(grad, (grad.shape[1], x.shape[1], kernel_size[0], kernel_size[1]), "channels_last")


_OPTIONS = "SymInt[] dilation, SymInt[] padding, str backend"
_forward = define_op(
    "dilated_conv2d",
    f"(Tensor x, Tensor weight, Tensor? bias, bool relu, {_OPTIONS}, bool keep=False) -> Tensor",
    _run,
    _fake,
)
_backward_x = define_op(
    "dilated_conv2d_backward_x",
    f"(Tensor grad, Tensor weight, SymInt[] size, {_OPTIONS}) -> Tensor",
    _run_backward_x,
    _fake_backward_x,
)
_backward_weight = define_op(
    "dilated_conv2d_backward_weight",
    f"(Tensor grad, Tensor x, SymInt[] kernel_size, {_OPTIONS}) -> Tensor",
    _run_backward_weight,
    _fake_backward_weight,
)
