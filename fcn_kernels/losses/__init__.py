"""Losses made of the operators: every one from coarse scores, on every backend that its operators have."""

from .binary import upsample_binary_cross_entropy
from .focal import upsample_focal_loss
from .region import upsample_dice_loss, upsample_tversky_loss
from .soft import upsample_soft_cross_entropy
from .topk import upsample_topk_cross_entropy

__all__ = [
    "upsample_binary_cross_entropy",
    "upsample_dice_loss",
    "upsample_focal_loss",
    "upsample_soft_cross_entropy",
    "upsample_topk_cross_entropy",
    "upsample_tversky_loss",
]
