"""Label map of bilinearly upsampled scores in plain PyTorch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor

from ...grid import BilinearGrid
from ..upsample_add.reference import upsample


def upsample_argmax(
    x: Tensor, grid: BilinearGrid, confidence: bool, dtype: torch.dtype
) -> Tensor | tuple[Tensor, Tensor]:
    logits = upsample(x, grid)
    labels = logits.argmax(1).to(dtype)
    if not confidence:
        return labels
    return labels, logits.softmax(1).amax(1)
