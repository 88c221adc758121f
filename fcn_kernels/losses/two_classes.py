"""Sigmoids as softmaxes: a score ``z`` is two classes with the scores 0 and ``z``, before upsampling as after it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import check_same, check_scores


def check_binary(operator: str, x: Tensor, target: Tensor) -> None:
    """``target`` holds 0 or 1 for each image and class of ``x``: ``[N, C, H, W]``, or ``[N, H, W]`` where C = 1."""
    check_scores(operator, "x", x)
    check_same(operator, "target", target, "the scores", x, dtype=False)
    n, classes = x.shape[:2]
    if not (target.dim() == 4 and target.shape[:2] == (n, classes)) and not (
        target.dim() == 3 and classes == 1 and target.shape[0] == n
    ):
        also = " or [N, H, W]" if classes == 1 else ""
        raise ValueError(
            f"{operator}: target must be [N, C, H, W]{also} with N, C = ({n}, {classes}), "
            f"got shape {tuple(target.shape)}"
        )


def two_classes(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """``[N, C, h, w]`` and checked targets as ``[N * C, 2, h, w]`` and ``[N * C, H, W]``."""
    z = x.reshape(-1, 1, *x.shape[2:])
    labels = target.reshape(-1, *target.shape[-2:])
    return torch.cat((torch.zeros_like(z), z), 1), labels.view(torch.uint8) if labels.dtype == torch.bool else labels
