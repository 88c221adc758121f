"""Focal loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ..grid import BilinearGrid
from ..ops.upsample_cross_entropy import upsample_cross_entropy
from .checks import check_at_least_zero, check_reduction
from .two_classes import check_binary, two_classes


def upsample_focal_loss(
    x: Tensor,
    target: Tensor,
    alpha: Tensor | None = None,
    *,
    gamma: float = 2.0,
    sigmoid: bool = False,
    ignore_index: int = -100,
    reduction: str = "mean",
    grid: BilinearGrid | None = None,
    backend: str | None = None,
) -> Tensor:
    """Focal loss of upsampled scores: ``-alpha_y * (1 - p_y)**gamma * log(p_y)`` with ``p`` their softmax.

    Made of ``upsample_cross_entropy(reduction="none")``: memory a few times the map ``[N, H, W]`` of losses, nothing of
    size C x H x W.

    Args:
        x: coarse scores ``[N, C, h, w]``, as for ``upsample_cross_entropy``.
        target: labels ``[N, H, W]``.
        alpha: ``[C]``, a weight for each class; with ``sigmoid`` ``[2]``, of 0 and of 1 (torchvision's ``alpha`` is
            ``(1 - alpha, alpha)``).
        gamma: at least 0; 0 is cross-entropy.
        sigmoid: each class by itself, ``p = sigmoid``; ``target`` then holds 0 and 1, ``[N, C, H, W]``, or
            ``[N, H, W]`` where C = 1; bool as well.
        ignore_index: pixels with this label count nowhere.
        reduction: ``"mean"`` over the pixels (and with ``sigmoid`` classes) that count, whatever ``alpha``; ``"sum"``;
            ``"none"`` gives the shape of ``target``.
        grid: where pixels sample ``x``; ``F.interpolate(align_corners=False)`` to the size of ``target`` if None.
        backend: as for ``upsample_cross_entropy``.

    Returns the loss in float32 (float64 for float64 scores). Gradient and errors as of ``upsample_cross_entropy``.
    """
    name = "upsample_focal_loss"
    check_at_least_zero(name, "gamma", gamma)
    check_reduction(name, reduction)
    scores, labels = x, target
    if sigmoid:
        check_binary(name, x, target)
        scores, labels = two_classes(x, target)
    loss = upsample_cross_entropy(
        scores, labels, ignore_index=ignore_index, reduction="none", grid=grid, backend=backend
    )
    if gamma > 0:
        # 1 - p without cancellation; not 0, where the derivative of a small power would be infinite.
        rest = -torch.expm1(-loss)
        loss = loss * rest.clamp_min(torch.finfo(loss.dtype).tiny) ** gamma
    if alpha is not None:
        loss = loss * _weights(name, alpha, scores, labels, ignore_index)
    if reduction == "none":
        return loss.view(target.shape)
    total = loss.sum()
    return total if reduction == "sum" else total / (labels != ignore_index).sum().clamp_min(1)


def _weights(operator: str, alpha: Tensor, scores: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Of each pixel; of those that do not count any finite number: their loss is 0."""
    classes = scores.shape[1]
    if not isinstance(alpha, Tensor):
        raise TypeError(f"{operator}: alpha must be a Tensor, got {type(alpha).__name__}")
    if alpha.shape != (classes,):
        raise ValueError(f"{operator}: alpha must have shape [{classes}], one per class, got {tuple(alpha.shape)}")
    dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
    return alpha.to(dtype)[torch.where(labels == ignore_index, 0, labels).clamp(0, classes - 1).long()]
