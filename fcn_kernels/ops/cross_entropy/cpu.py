"""Launches the C++ kernel of cross_entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ...checks import raise_bad_label
from ...extension import C


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    loss: Tensor,
    grad: Tensor | None = None,
) -> None:
    """Writes ``loss`` (of each pixel where ``reduction`` is "none") and, unless None, ``grad``."""
    sums = torch.float64 if logits.dtype == torch.float64 else torch.float32
    weight = None if weight is None else weight.detach().to(sums).contiguous()
    pixel_weight = None if pixel_weight is None else pixel_weight.detach().to(sums)
    pixels = reduction == "none"
    bad_pixel = C.cross_entropy(
        logits,
        target,
        weight,
        pixel_weight,
        grad,
        loss if pixels else None,
        None if pixels else loss,
        ignore_index,
        reduction == "mean",
        label_smoothing,
        torch.get_num_threads(),
    )
    if bad_pixel >= 0:
        raise_bad_label("cross_entropy", target, bad_pixel, logits.shape[1], ignore_index)
