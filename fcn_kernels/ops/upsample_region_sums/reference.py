"""Sums of class probabilities over pixels, of bilinearly upsampled scores, in plain PyTorch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor

from ...grid import BilinearGrid
from ..upsample_add.reference import upsample


def upsample_region_sums(x: Tensor, target: Tensor, grid: BilinearGrid, ignore_index: int, squared: bool) -> Tensor:
    """``[3, N, C]``: see ``RegionSums``."""
    scores, label = upsample(x, grid), target.long()
    classes = scores.shape[1]
    valid = label != ignore_index
    known = (label >= 0) & (label < classes)
    # A pixel that does not count may have any scores.
    p = torch.where(valid[:, None], scores, 0).softmax(1) * valid[:, None]
    own = torch.zeros_like(p).scatter_(1, torch.where(known, label, 0)[:, None], (valid & known)[:, None].to(p.dtype))
    # A label out of range is never an index; it makes the sums NaN.
    own = torch.where((known | ~valid)[:, None], own, torch.nan)
    terms = (p * own, p * p if squared else p, own)
    return torch.stack([term.sum((2, 3)) for term in terms])
