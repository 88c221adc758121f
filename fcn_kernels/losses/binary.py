"""Binary and multi-label cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ..grid import BilinearGrid
from ..ops.upsample_cross_entropy import upsample_cross_entropy
from .checks import check_reduction
from .two_classes import check_binary, two_classes


def upsample_binary_cross_entropy(
    x: Tensor,
    target: Tensor,
    pos_weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    grid: BilinearGrid | None = None,
    backend: str | None = None,
) -> Tensor:
    """Binary cross-entropy of upsampled scores, each class by itself, without the upsampled scores.

    Replaces ``F.binary_cross_entropy_with_logits(F.interpolate(x, target.shape[2:], mode="bilinear"), target.float(),
    pos_weight=pos_weight[:, None, None])``. Made of ``upsample_cross_entropy`` of two classes, whose scores are 0 and
    those of ``x``.

    Args:
        x: coarse scores ``[N, C, h, w]``, as for ``upsample_cross_entropy``.
        target: 0 and 1, ``[N, C, H, W]``, or ``[N, H, W]`` where C = 1; bool, uint8, int16, int32 or int64.
        pos_weight: ``[C]``, the weight of 1 for each class (0 weighs 1); classes are then gone through one by one.
        ignore_index: what is neither 0 nor 1 but this counts nowhere.
        reduction: ``"mean"`` over what counts, whatever ``pos_weight``; ``"sum"``; ``"none"``: the shape of ``target``.
        grid: where pixels sample ``x``; ``F.interpolate(align_corners=False)`` to the size of ``target`` if None.
        backend: as for ``upsample_cross_entropy``.

    Returns the loss in float32 (float64 for float64 scores). Gradient and errors as of ``upsample_cross_entropy``.
    """
    name = "upsample_binary_cross_entropy"
    check_reduction(name, reduction)
    check_binary(name, x, target)
    options = {"ignore_index": ignore_index, "grid": grid, "backend": backend}
    if pos_weight is None:
        loss = upsample_cross_entropy(*two_classes(x, target), reduction=reduction, **options)  # type: ignore[arg-type]
        return loss.view(target.shape) if reduction == "none" else loss
    classes = x.shape[1]
    if not isinstance(pos_weight, Tensor):
        raise TypeError(f"{name}: pos_weight must be a Tensor, got {type(pos_weight).__name__}")
    if pos_weight.shape != (classes,):
        raise ValueError(
            f"{name}: pos_weight must have shape [{classes}], one per class, got {tuple(pos_weight.shape)}"
        )
    maps = target.view(x.shape[0], classes, *target.shape[-2:])
    weights = torch.stack((torch.ones_like(pos_weight), pos_weight), 1)
    losses = [
        upsample_cross_entropy(
            *two_classes(x[:, c : c + 1], maps[:, c]),
            weights[c],
            reduction="none" if reduction == "none" else "sum",
            **options,  # type: ignore[arg-type]
        )
        for c in range(classes)
    ]
    if reduction == "none":
        return torch.stack(losses, 1).view(target.shape)
    total = torch.stack(losses).sum()
    return total if reduction == "sum" else total / (target != ignore_index).sum().clamp_min(1)
