"""Learnable depthwise transposed convolution with crop and skip-add."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...autograd import first_order_only, recorded
from ...backend import choose, define_op, implementation
from ...checks import check_number, check_same, check_scores, check_size, check_skip
from ...layout import empty_map, layout_of
from .reference import conv_transpose_add as conv_transpose_add_reference


def conv_transpose_add(
    x: Tensor,
    weight: Tensor,
    skip: Tensor | None = None,
    *,
    stride: int,
    crop: int = 0,
    size: tuple[int, int] | None = None,
    backend: str | None = None,
) -> Tensor:
    """Transposed convolution of each channel, cropped, plus ``skip``, in one pass (FCN's learnable "deconvolution" and
    fusion of streams; CVPR 2015, sections 3.3 and 4.2). ``bilinear_kernel`` gives the filter that FCN starts from.

    Replaces ``F.conv_transpose2d(x, weight, stride=stride, groups=C)[:, :, crop:crop+H, crop:crop+W] + skip``. Only
    what the crop keeps is computed, and the convolved map is not written on its own.

    Args:
        x: ``[N, C, h, w]``, float32, bfloat16, float16 or float64, contiguous or channels_last.
        weight: ``[C, 1, k, k]`` of the same dtype, one filter for each channel.
        skip: ``[N, C, H, W]`` of the same dtype, or None for the convolution alone.
        stride: output pixels from one pixel of ``x`` to the next, at least 1.
        crop: output pixels left out at the top and at the left.
        size: ``(H, W)`` where ``skip`` does not say it; everything after the crop if None.
        backend: ``"reference"``, ``"cpu"``, ... or None for the default (``use_backend``).

    Returns ``[N, C, H, W]`` in the dtype of ``x`` (sums in float32), in the layout of ``skip``, else of ``x``.
    Differentiable once in ``x``, ``weight`` and ``skip``; gradients repeat bit for bit, whatever the number of threads.
    Where scores or filters are not finite, pixels within reach of a filter of ``stride * ceil(k / stride)`` show it.
    Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong, and where ``crop + size`` passes the
    ``stride * (h - 1) + k`` pixels that ``x`` feeds.
    """
    check_scores("conv_transpose_add", "x", x)
    check_same("conv_transpose_add", "weight", weight, "x", x, dtype=True)
    k = weight.shape[-1] if weight.dim() == 4 else 0
    if k < 1 or weight.shape != (x.shape[1], 1, k, k):
        raise ValueError(
            f"conv_transpose_add: weight must be [C, 1, k, k] with C = {x.shape[1]}, got shape {tuple(weight.shape)}"
        )
    if skip is not None:
        check_skip("conv_transpose_add", skip, x, size)
        size = (skip.shape[2], skip.shape[3])
    size = _output_size(x, k, stride, crop, size)
    backend = choose("conv_transpose_add", backend, x)
    if backend == "reference":
        return conv_transpose_add_reference(x, weight, skip, stride, crop, size)
    run = _ConvTransposeAdd.apply if recorded(x, weight, skip) else _forward
    result: Tensor = run(x, weight, skip, list(size), stride, crop, backend)
    return result


def _output_size(x: Tensor, k: int, stride: int, crop: int, size: tuple[int, int] | None) -> tuple[int, int]:
    check_number("conv_transpose_add", "stride", stride, 1)
    check_number("conv_transpose_add", "crop", crop, 0)
    full = (stride * (x.shape[2] - 1) + k, stride * (x.shape[3] - 1) + k)
    if size is None:
        size = (full[0] - crop, full[1] - crop)
    size = check_size("conv_transpose_add", "size", size)
    if size[0] < 1 or size[1] < 1 or crop + size[0] > full[0] or crop + size[1] > full[1]:
        raise ValueError(
            f"conv_transpose_add: size must be (height, width) of at least 1 within the {full} pixels that x feeds, "
            f"less the crop of {crop}; got {tuple(size)}"
        )
    return size[0], size[1]


class _ConvTransposeAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, skip: Tensor | None, size: list[int], *options: Any) -> Tensor:
        ctx.options = options
        ctx.save_for_backward(x, weight)
        return _forward(x, weight, skip, size, *options)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _backward_x(grad, weight, [x.shape[2], x.shape[3]], layout_of(x), *ctx.options)
            grad_x = first_order_only("conv_transpose_add", grad_x, grad, weight)
        if ctx.needs_input_grad[1]:
            grad_weight = _backward_weight(grad, x, weight.shape[2], *ctx.options)
            grad_weight = first_order_only("conv_transpose_add", grad_weight, grad, x)
        # The sum passes the incoming gradient on as it is.
        grad_skip = grad if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_skip, None, *(None for _ in ctx.options)


# ``options`` are what the op's schema ends in: the numbers that kernels take, and the backend.


def _run(x: Tensor, weight: Tensor, skip: Tensor | None, size: list[int], *options: Any) -> Tensor:
    out = _fake(x, weight, skip, size)
    *numbers, backend = options
    implementation("conv_transpose_add", backend).conv_transpose_add(x, weight, skip, *numbers, out)
    return out


def _fake(x: Tensor, weight: Tensor, skip: Tensor | None, size: list[int], *options: Any) -> Tensor:
    return empty_map(x, (x.shape[0], x.shape[1], size[0], size[1]), layout_of(x if skip is None else skip))


def _run_backward_x(grad: Tensor, weight: Tensor, size: list[int], layout: str, *options: Any) -> Tensor:
    grad_x = _fake_backward_x(grad, weight, size, layout)
    *numbers, backend = options
    implementation("conv_transpose_add", backend).conv_transpose_add_backward_x(grad, weight, *numbers, grad_x)
    return grad_x


def _fake_backward_x(grad: Tensor, weight: Tensor, size: list[int], layout: str, *options: Any) -> Tensor:
    return empty_map(grad, (grad.shape[0], grad.shape[1], size[0], size[1]), layout)


def _run_backward_weight(grad: Tensor, x: Tensor, kernel_size: int, *options: Any) -> Tensor:
    grad_weight = _fake_backward_weight(grad, x, kernel_size)
    *numbers, backend = options
    implementation("conv_transpose_add", backend).conv_transpose_add_backward_weight(grad, x, *numbers, grad_weight)
    return grad_weight


def _fake_backward_weight(grad: Tensor, x: Tensor, kernel_size: int, *options: Any) -> Tensor:
    return grad.new_empty((grad.shape[1], 1, kernel_size, kernel_size))


_OPTIONS = "SymInt stride, SymInt crop, str backend"
_forward = define_op(
    "conv_transpose_add",
    f"(Tensor x, Tensor weight, Tensor? skip, SymInt[] size, {_OPTIONS}) -> Tensor",
    _run,
    _fake,
)
_backward_x = define_op(
    "conv_transpose_add_backward_x",
    f"(Tensor grad, Tensor weight, SymInt[] size, str layout, {_OPTIONS}) -> Tensor",
    _run_backward_x,
    _fake_backward_x,
)
_backward_weight = define_op(
    "conv_transpose_add_backward_weight",
    f"(Tensor grad, Tensor x, SymInt kernel_size, {_OPTIONS}) -> Tensor",
    _run_backward_weight,
    _fake_backward_weight,
)
