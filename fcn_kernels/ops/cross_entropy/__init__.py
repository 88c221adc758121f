"""Per-pixel softmax cross-entropy at full resolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...autograd import first_order_only, recorded
from ...backend import choose, implementation
from ...checks import check_scores
from ...loss import NO_OTHER_GRADIENTS, LossCall, define_loss_op
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
    once forward; the gradient is written in the same pass on a CPU, and by one more read and write on a GPU. No
    log-probabilities are stored. (Where logits come from upsampling, ``upsample_cross_entropy`` needs none at all.)

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
    not supported. Weights have no gradient here, and are refused where they require one. A logit of -inf excludes its
    class: its probability and gradient are 0, and the loss +inf where it is the label. NaN and +inf make the loss of
    their pixel NaN. Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong.
    """
    check_scores("cross_entropy", "logits", logits)
    backend = choose("cross_entropy", backend, logits)
    call = LossCall(logits, target, weight, pixel_weight, ignore_index, reduction, label_smoothing, backend)
    call.check("cross_entropy")
    if target.shape[1:] != logits.shape[2:]:
        raise ValueError(
            f"cross_entropy: target must be [N, H, W] with H, W = {tuple(logits.shape[2:])}, got {tuple(target.shape)}"
        )
    if backend == "reference":
        return cross_entropy_reference(call)
    loss: Tensor
    if recorded(logits):
        # CPU kernels make the gradient of a reduced loss in the forward pass, others when backward asks for it.
        function = _GradientInForward if backend == "cpu" and reduction != "none" else _GradientInBackward
        loss = function.apply(*call)
    else:
        loss = _forward(False, *call)[0]
    return loss


class _GradientInForward(torch.autograd.Function):
    """One pass over the logits in all, for the usual incoming gradient of 1 that a CPU can look at."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        call = LossCall(*arguments)
        loss, *grad = _forward(ctx.needs_input_grad[0], *call)
        ctx.save_for_backward(*call.tensors, *grad)
        ctx.options, ctx.handed_out = call.options, False
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        call, (grad,) = LossCall.restored(ctx)
        # A pass over the full-resolution gradient is worth a look at the incoming one.
        one = not torch.compiler.is_compiling() and grad_loss.item() == 1
        if ctx.handed_out:  # to a caller who may have changed it
            _, grad = _forward(True, *call)
        if one:
            ctx.handed_out = True
        grad_logits = grad if one else grad * grad_loss.to(grad.dtype)
        return first_order_only("cross_entropy", grad_logits, call.scores, grad_loss), *NO_OTHER_GRADIENTS


class _GradientInBackward(torch.autograd.Function):
    """The gradient is that of the sum with each pixel weighed by its incoming gradient as well.

    A GPU cannot look at the incoming gradient without waiting, and to multiply a gradient made in forward would be one
    more pass over it than reading the logits again; in float16 a scaled loss would come too late to save small values.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        call = LossCall(*arguments)
        loss, *scale = _forward(False, *call)
        ctx.save_for_backward(*call.tensors, *scale)
        ctx.options = call.options
        return loss  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        call, scale = LossCall.restored(ctx)
        grad_loss = grad_loss * scale[0] if scale else grad_loss
        # Alone on a GPU; on a CPU, which comes here for the losses of pixels, with their sum.
        *_, grad = _forward(True, *call.weighed_sum(grad_loss.expand(call.target.shape)))
        return first_order_only("cross_entropy", grad, call.scores, grad_loss), *NO_OTHER_GRADIENTS


def _outputs(with_grad: bool, call: LossCall) -> tuple[str, ...]:
    """What a call makes, in this order: the loss (of each pixel for "none"); the gradient of the reduced loss; what
    makes the gradient of the sum that of the mean: 1 / sum of weights, or 0 if they are none."""
    if call.backend == "cpu":
        return ("loss", "grad") if with_grad else ("loss",)
    if with_grad:
        return ("grad",)
    return ("loss", "scale") if call.reduction == "mean" else ("loss",)


def _run(with_grad: bool, call: LossCall) -> list[Tensor]:
    outputs = _fake(with_grad, call)
    if call.target.numel() == 0:
        return [output.zero_() for output in outputs]
    written = dict(zip(_outputs(with_grad, call), outputs, strict=True))
    implementation("cross_entropy", call.backend).cross_entropy(call, **written)
    return outputs


def _fake(with_grad: bool, call: LossCall) -> list[Tensor]:
    outputs = []
    for name in _outputs(with_grad, call):
        if name == "grad":
            outputs.append(torch.empty_like(call.scores))
        else:
            shape = call.target.shape if name == "loss" and call.reduction == "none" else ()
            outputs.append(call.scores.new_empty(shape, dtype=call.sum_dtype))
    return outputs


_forward = define_loss_op("cross_entropy", "bool with_grad", "Tensor[]", _run, _fake)
