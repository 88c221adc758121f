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
    own = (valid[:, None] & (label[:, None] == torch.arange(classes, device=x.device)[:, None, None])).to(p.dtype)
    # A label out of range is never an index; it makes its image's sums NaN.
    p, own = (torch.where((known | ~valid)[:, None], map_, torch.nan) for map_ in (p, own))
    terms = (torch.where(own == 0, 0, p * own), p * p if squared else p, own)
    return torch.stack([term.sum((2, 3)) for term in terms])
