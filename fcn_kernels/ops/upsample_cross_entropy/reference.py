"""Cross-entropy of bilinearly upsampled scores in plain PyTorch: the specification."""

from __future__ import annotations

from torch import Tensor

from ...grid import BilinearGrid
from ...loss import LossCall
from ..cross_entropy.reference import cross_entropy
from ..upsample_add.reference import upsample


def upsample_cross_entropy(call: LossCall, grid: BilinearGrid) -> Tensor:
    return cross_entropy(call._replace(scores=upsample(call.scores, grid)))
