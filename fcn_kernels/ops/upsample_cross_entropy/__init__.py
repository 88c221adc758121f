"""Cross-entropy loss straight from coarse scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...autograd import first_order_only, recorded
from ...backend import choose, implementation
from ...checks import check_scores, output_grid
from ...grid import BilinearGrid
from ...loss import NO_OTHER_GRADIENTS, LossCall, define_loss_op
from .reference import upsample_cross_entropy as upsample_cross_entropy_reference


def upsample_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    grid: BilinearGrid | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    align_corners: bool = False,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """Per-pixel softmax cross-entropy of upsampled scores, without the upsampled scores.

    Replaces ``F.cross_entropy(F.interpolate(x, target.shape[1:], mode="bilinear"), target, ...)``. The forward pass
    makes the gradient of ``x`` as well when one is needed. Memory: a few times ``x``; nothing of size C x H x W exists.

    Args:
        x: coarse scores ``[N, C, h, w]``, float32, bfloat16, float16 or float64, contiguous or channels_last.
        target: labels ``[N, H, W]``, uint8, int16, int32 or int64.
        weight: ``[C]``, a weight for each class, as in ``F.cross_entropy``.
        grid: where pixels sample ``x``; ``F.interpolate(align_corners=False)`` to the size of ``target`` if None.
        scale_factor, align_corners: those of ``F.interpolate``, where ``grid`` is not given; ``target`` has the size.
        pixel_weight: ``[N, H, W]``, a weight for each pixel (0 leaves it out): loss sampling (CVPR 2015, section 4.4).
        ignore_index: pixels with this label count nowhere.
        reduction: ``"mean"`` divides by the sum of class weight x pixel weight over counted pixels; ``"sum"``;
            ``"none"`` gives ``[N, H, W]``.
        label_smoothing: in [0, 1], as in ``F.cross_entropy``.
        backend: ``"reference"``, ``"cpu"``, ... or None for the default (``use_backend``).

    Returns the loss in float32 (float64 for float64 scores). Where no pixel counts, ``"mean"`` is 0 with zero gradient
    (``F.cross_entropy`` gives NaN). Differentiable once, in ``x``; the gradient is summed in float32 and repeats bit
    for bit. A label out of range raises ``ValueError`` on a CPU and makes the loss NaN on a GPU or the reference (see
    ``check_target``). Weights have no gradient here, and are refused where they require one.

    Scores may be -inf, which excludes a class: wherever it has a weight in a pixel its probability and its gradient are
    0, and a score with weight 0 counts for nothing (in PyTorch it makes NaN). A label whose score is -inf costs +inf,
    and with ``label_smoothing`` so does any class whose score is -inf unless its class weight is 0. The loss is NaN at
    pixels where every class is excluded, or NaN or +inf have a weight. Pixels that do not count may have any scores.

    Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong.
    """
    check_scores("upsample_cross_entropy", "x", x)
    backend = choose("upsample_cross_entropy", backend, x)
    call = LossCall(x, target, weight, pixel_weight, ignore_index, reduction, label_smoothing, backend)
    call.check("upsample_cross_entropy")
    size = (target.shape[1], target.shape[2])
    grid = output_grid("upsample_cross_entropy", x, grid, size, "target", scale_factor, align_corners)
    if backend == "reference":
        return upsample_cross_entropy_reference(call, grid)
    ints = grid.as_ints()
    loss: Tensor
    if recorded(x):
        function = _PixelLoss if reduction == "none" else _ReducedLoss
        loss = function.apply(ints, *call)
    elif reduction == "none":
        loss = _pixels(ints, *call)
    else:
        loss = _forward(ints, False, *call)[0]
    return loss


class _ReducedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grid: list[int], *arguments: Any) -> Tensor:
        loss, *gradient = _forward(grid, ctx.needs_input_grad[1], *arguments)
        ctx.save_for_backward(LossCall(*arguments).scores, *gradient)
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        x, grad, *scale = ctx.saved_tensors
        grad_x = (grad * (grad_loss * scale[0] if scale else grad_loss)).to(x.dtype)
        grad_x = first_order_only("upsample_cross_entropy", grad_x, x, grad_loss)
        return None, grad_x, *NO_OTHER_GRADIENTS


class _PixelLoss(torch.autograd.Function):
    """reduction="none": the gradient is that of the sum with each pixel weighed by its incoming gradient."""

    @staticmethod
    def forward(ctx: Any, grid: list[int], *arguments: Any) -> Tensor:
        call = LossCall(*arguments)
        ctx.save_for_backward(*call.tensors)
        ctx.options, ctx.grid = call.options, grid
        return _pixels(grid, *call)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        call, _ = LossCall.restored(ctx)
        _, grad, *_ = _forward(ctx.grid, True, *call.weighed_sum(grad_loss))
        grad_x = first_order_only("upsample_cross_entropy", grad.to(call.scores.dtype), call.scores, grad_loss)
        return None, grad_x, *NO_OTHER_GRADIENTS


def _outputs(with_grad: bool, call: LossCall) -> tuple[str, ...]:
    """What a call makes, in this order: the loss; its gradient, from a GPU that of the sum over pixels; and what makes
    that the gradient of the loss: 1 for "sum"; for "mean" 1 / sum of weights, or 0 if they are none."""
    if not with_grad:
        return ("loss",)
    return ("loss", "grad") if call.backend == "cpu" else ("loss", "grad", "scale")


def _run(grid: list[int], with_grad: bool, call: LossCall) -> list[Tensor]:
    outputs = _fake(grid, with_grad, call)
    if call.target.numel() == 0:
        return [output.zero_() for output in outputs]
    written = dict(zip(_outputs(with_grad, call), outputs, strict=True))
    implementation("upsample_cross_entropy", call.backend).upsample_cross_entropy(call, grid, **written)
    return outputs


def _fake(grid: list[int], with_grad: bool, call: LossCall) -> list[Tensor]:
    x, dtype = call.scores, call.sum_dtype
    return [
        torch.empty_like(x, dtype=dtype) if name == "grad" else x.new_empty((), dtype=dtype)
        for name in _outputs(with_grad, call)
    ]


def _run_pixels(grid: list[int], call: LossCall) -> Tensor:
    loss = _fake_pixels(grid, call)
    if call.target.numel() > 0:
        implementation("upsample_cross_entropy", call.backend).upsample_cross_entropy_pixels(call, grid, loss)
    return loss


def _fake_pixels(grid: list[int], call: LossCall) -> Tensor:
    return call.scores.new_empty(call.target.shape, dtype=call.sum_dtype)


_forward = define_loss_op("upsample_cross_entropy", "SymInt[] grid, bool with_grad", "Tensor[]", _run, _fake)
_pixels = define_loss_op("upsample_cross_entropy_pixels", "SymInt[] grid", "Tensor", _run_pixels, _fake_pixels)
