"""Cross-entropy loss straight from coarse scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...autograd import first_order_only, recorded
from ...backend import choose, define_op, implementation
from ...checks import REDUCTIONS, check_loss_arguments, check_scores, output_grid
from ...grid import BilinearGrid
from .reference import upsample_cross_entropy as upsample_cross_entropy_reference


def upsample_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    grid: BilinearGrid | None = None,
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
        pixel_weight: ``[N, H, W]``, a weight for each pixel (0 leaves it out): loss sampling (CVPR 2015, section 4.4).
        ignore_index: pixels with this label count nowhere.
        reduction: ``"mean"`` divides by the sum of class weight x pixel weight over counted pixels; ``"sum"``;
            ``"none"`` gives ``[N, H, W]``.
        label_smoothing: in [0, 1], as in ``F.cross_entropy``.
        backend: ``"reference"``, ``"cpu"``, ... or None for the default (``use_backend``).

    Returns the loss in float32 (float64 for float64 scores). Where no pixel counts, ``"mean"`` is 0 with zero gradient
    (``F.cross_entropy`` gives NaN). Differentiable once, in ``x``; the gradient is summed in float32 and repeats bit
    for bit. A label out of range raises ``ValueError`` on a CPU and makes the loss NaN on a GPU or the reference (see
    ``check_target``).
    Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong.
    """
    check_scores("upsample_cross_entropy", "x", x)
    check_loss_arguments("upsample_cross_entropy", x, target, weight, pixel_weight, reduction, label_smoothing)
    grid = output_grid("upsample_cross_entropy", x, grid, (target.shape[1], target.shape[2]), "target")
    backend = choose("upsample_cross_entropy", backend, x)
    if backend == "reference":
        return upsample_cross_entropy_reference(
            x, target, weight, pixel_weight, grid, ignore_index, reduction, label_smoothing
        )
    maps, ints, reduced = (x, target, weight, pixel_weight), grid.as_ints(), REDUCTIONS.index(reduction)
    loss: Tensor
    if recorded(x):
        function = _PixelLoss if reduction == "none" else _ReducedLoss
        loss = function.apply(*maps, ints, ignore_index, reduced, label_smoothing, backend)
    elif reduction == "none":
        loss = _pixels(*maps, ints, ignore_index, label_smoothing, backend)
    else:
        loss = _forward(*maps, ints, ignore_index, reduced, label_smoothing, False, backend)[0]
    return loss


class _ReducedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        target: Tensor,
        weight: Tensor | None,
        pixel_weight: Tensor | None,
        grid: list[int],
        ignore_index: int,
        reduction: int,
        label_smoothing: float,
        backend: str,
    ) -> Tensor:
        with_grad = ctx.needs_input_grad[0]
        loss, *gradient = _forward(
            x, target, weight, pixel_weight, grid, ignore_index, reduction, label_smoothing, with_grad, backend
        )
        ctx.save_for_backward(x, *gradient)
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        x, grad, *scale = ctx.saved_tensors
        grad_x = (grad * (grad_loss * scale[0] if scale else grad_loss)).to(x.dtype)
        return first_order_only("upsample_cross_entropy", grad_x, x, grad_loss), *(None,) * 8


class _PixelLoss(torch.autograd.Function):
    """reduction="none": the gradient is that of the sum with each pixel weighed by its incoming gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        target: Tensor,
        weight: Tensor | None,
        pixel_weight: Tensor | None,
        grid: list[int],
        ignore_index: int,
        reduction: int,
        label_smoothing: float,
        backend: str,
    ) -> Tensor:
        ctx.options = (grid, ignore_index, REDUCTIONS.index("sum"), label_smoothing)
        ctx.backend = backend
        ctx.save_for_backward(x, target, weight, pixel_weight)
        return _pixels(x, target, weight, pixel_weight, grid, ignore_index, label_smoothing, backend)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        x, target, weight, pixel_weight = ctx.saved_tensors
        pixel_weight = grad_loss if pixel_weight is None else grad_loss * pixel_weight
        _, grad, *_ = _forward(x, target, weight, pixel_weight, *ctx.options, True, ctx.backend)
        return first_order_only("upsample_cross_entropy", grad.to(x.dtype), x, grad_loss), *(None,) * 8


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _outputs(with_grad: bool, backend: str) -> tuple[str, ...]:
    """What a call makes, in this order: the loss; its gradient, from a GPU that of the sum over pixels; and what makes
    that the gradient of the loss: 1 for "sum"; for "mean" 1 / sum of weights, or 0 if they are none."""
    if not with_grad:
        return ("loss",)
    return ("loss", "grad") if backend == "cpu" else ("loss", "grad", "scale")


def _run(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    with_grad: bool,
    backend: str,
) -> list[Tensor]:
    outputs = _fake(x, target, weight, pixel_weight, grid, ignore_index, reduction, label_smoothing, with_grad, backend)
    if target.numel() == 0:
        return [output.zero_() for output in outputs]
    written = dict(zip(_outputs(with_grad, backend), outputs, strict=True))
    implementation("upsample_cross_entropy", backend).upsample_cross_entropy(
        x, target, weight, pixel_weight, grid, ignore_index, REDUCTIONS[reduction], label_smoothing, **written
    )
    return outputs


def _fake(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    with_grad: bool,
    backend: str,
) -> list[Tensor]:
    dtype = _sum_dtype(x)
    return [
        torch.empty_like(x, dtype=dtype) if name == "grad" else x.new_empty((), dtype=dtype)
        for name in _outputs(with_grad, backend)
    ]


def _run_pixels(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    label_smoothing: float,
    backend: str,
) -> Tensor:
    loss = _fake_pixels(x, target, weight, pixel_weight, grid, ignore_index, label_smoothing, backend)
    if target.numel() == 0:
        return loss
    implementation("upsample_cross_entropy", backend).upsample_cross_entropy_pixels(
        x, target, weight, pixel_weight, grid, ignore_index, label_smoothing, loss
    )
    return loss


def _fake_pixels(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    label_smoothing: float,
    backend: str,
) -> Tensor:
    return x.new_empty((x.shape[0], grid[0], grid[1]), dtype=_sum_dtype(x))


_forward = define_op(
    "upsample_cross_entropy",
    "(Tensor x, Tensor target, Tensor? weight, Tensor? pixel_weight, SymInt[] grid, int ignore_index, int reduction, "
    "float label_smoothing, bool with_grad, str backend) -> Tensor[]",
    _run,
    _fake,
)
_pixels = define_op(
    "upsample_cross_entropy_pixels",
    "(Tensor x, Tensor target, Tensor? weight, Tensor? pixel_weight, SymInt[] grid, int ignore_index, "
    "float label_smoothing, str backend) -> Tensor",
    _run_pixels,
    _fake_pixels,
)
