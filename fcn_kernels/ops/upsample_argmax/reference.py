"""Label map of bilinearly upsampled scores in plain PyTorch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor

from ...grid import BilinearGrid
from ..upsample_add.reference import upsample


def upsample_argmax(x: Tensor, grid: BilinearGrid, confidence: bool) -> Tensor | tuple[Tensor, Tensor]:
    logits = upsample(x, grid)
    labels = logits.argmax(1).to(torch.uint8 if x.shape[1] <= 256 else torch.int64)
    if not confidence:
        return labels
    return labels, logits.softmax(1).amax(1)
