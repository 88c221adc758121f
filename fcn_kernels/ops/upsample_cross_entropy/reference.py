"""Cross-entropy of bilinearly upsampled scores in plain PyTorch: the specification."""

from __future__ import annotations

from torch import Tensor

from ...grid import BilinearGrid
from ..cross_entropy.reference import cross_entropy
from ..upsample_add.reference import upsample


def upsample_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: BilinearGrid,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    return cross_entropy(upsample(x, grid), target, weight, pixel_weight, ignore_index, reduction, label_smoothing)
