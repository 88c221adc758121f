"""Per-pixel softmax cross-entropy at full resolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...backend import choose, define_op, implementation
from ...checks import REDUCTIONS, check_loss_arguments, check_scores
from ...first_order import first_order_only
from .reference import cross_entropy as cross_entropy_reference


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    pixel_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """Softmax cross-entropy over dim 1, for maps of logits with few classes.

    Replaces ``F.cross_entropy(logits, target, weight, ...)``, with a weight for each pixel besides. Reads the logits
    once and, where a gradient is needed, writes it in the same pass: no log-probabilities are stored. (Where logits
    come from upsampling, ``upsample_cross_entropy`` needs no logits at all.)

    Args:
        logits: ``[N, C, H, W]``, float32, bfloat16, float16 or float64, contiguous or channels_last.
        target: labels ``[N, H, W]``, uint8, int16, int32 or int64.
        weight: ``[C]``, a weight for each class.
        pixel_weight: ``[N, H, W]``, a weight for each pixel; 0 leaves it out.
        ignore_index: pixels with this label count nowhere.
        reduction: ``"mean"`` divides by the sum of class weight x pixel weight over counted pixels; ``"sum"``;
            ``"none"`` gives ``[N, H, W]``.
        label_smoothing: in [0, 1].
        backend: ``"reference"``, ``"cpu"``, ... or None for the default (``use_backend``).

    Returns the loss in float32 (float64 for float64 logits). Where no pixel counts, ``"mean"`` is 0 with zero gradient
    (``F.cross_entropy`` gives NaN). Differentiable once, in ``logits``. A label out of range raises ``ValueError``
    on a CPU and makes the loss NaN on a GPU or the reference (see ``check_target``). Class probabilities as targets are
    not supported. Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong.
    """
    check_scores("cross_entropy", "logits", logits)
    check_loss_arguments("cross_entropy", logits, target, weight, pixel_weight, reduction, label_smoothing)
    if target.shape[1:] != logits.shape[2:]:
        raise ValueError(
            f"cross_entropy: target must be [N, H, W] with H, W = {tuple(logits.shape[2:])}, got {tuple(target.shape)}"
        )
    backend = choose("cross_entropy", backend, logits)
    if backend == "reference":
        return cross_entropy_reference(logits, target, weight, pixel_weight, ignore_index, reduction, label_smoothing)
    function = _PixelLoss if reduction == "none" else _ReducedLoss
    loss: Tensor = function.apply(
        logits, target, weight, pixel_weight, ignore_index, REDUCTIONS.index(reduction), label_smoothing, backend
    )
    return loss


class _ReducedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        pixel_weight: Tensor | None,
        ignore_index: int,
        reduction: int,
        label_smoothing: float,
        backend: str,
    ) -> Tensor:
        loss, grad = _forward(
            logits,
            target,
            weight,
            pixel_weight,
            ignore_index,
            reduction,
            label_smoothing,
            ctx.needs_input_grad[0],
            backend,
        )
        ctx.save_for_backward(logits, grad)
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        logits, grad = ctx.saved_tensors
        # The usual incoming gradient is 1, and a pass over the full-resolution gradient is worth a look at it. A look
        # is free on a CPU only: elsewhere it would wait for the device.
        one = grad_loss.device.type == "cpu" and not torch.compiler.is_compiling() and bool(grad_loss == 1)
        grad_logits = grad if one else grad * grad_loss.to(grad.dtype)
        return first_order_only("cross_entropy", grad_logits, logits, grad_loss), *(None,) * 7


class _PixelLoss(torch.autograd.Function):
    """reduction="none": the gradient is that of the sum with each pixel weighed by its incoming gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        pixel_weight: Tensor | None,
        ignore_index: int,
        reduction: int,
        label_smoothing: float,
        backend: str,
    ) -> Tensor:
        ctx.options = (ignore_index, REDUCTIONS.index("sum"), label_smoothing)
        ctx.backend = backend
        ctx.save_for_backward(logits, target, weight, pixel_weight)
        loss, _ = _forward(
            logits, target, weight, pixel_weight, ignore_index, reduction, label_smoothing, False, backend
        )
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, weight, pixel_weight = ctx.saved_tensors
        pixel_weight = grad_loss if pixel_weight is None else grad_loss * pixel_weight
        _, grad = _forward(logits, target, weight, pixel_weight, *ctx.options, True, ctx.backend)
        return first_order_only("cross_entropy", grad, logits, grad_loss), *(None,) * 7


def _run(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    with_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """The loss (of each pixel for "none") and the gradient of the reduced loss (empty unless asked for)."""
    loss, grad = _fake(
        logits, target, weight, pixel_weight, ignore_index, reduction, label_smoothing, with_grad, backend
    )
    implementation("cross_entropy", backend).cross_entropy(
        logits, target, weight, pixel_weight, ignore_index, REDUCTIONS[reduction], label_smoothing,
        loss, grad if with_grad else None,
    )  # fmt: skip
    return loss, grad


def _fake(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    reduction: int,
    label_smoothing: float,
    with_grad: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    shape = (logits.shape[0], logits.shape[2], logits.shape[3]) if REDUCTIONS[reduction] == "none" else ()
    grad = torch.empty_like(logits) if with_grad else logits.new_empty((0,))
    return logits.new_empty(shape, dtype=dtype), grad


_forward = define_op(
    "cross_entropy",
    "(Tensor logits, Tensor target, Tensor? weight, Tensor? pixel_weight, int ignore_index, int reduction, "
    "float label_smoothing, bool with_grad, str backend) -> (Tensor, Tensor)",
    _run,
    _fake,
)
