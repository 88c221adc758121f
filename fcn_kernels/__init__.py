"""Operators for dense prediction: bilinear upsampling, losses and label maps that never hold full-resolution scores."""

from .backend import use_backend
from .checks import check_target
from .filters import bilinear_kernel, rarefy
from .fusion import fuse
from .grid import BilinearGrid, CoordMap
from .losses import (
    upsample_binary_cross_entropy,
    upsample_dice_loss,
    upsample_focal_loss,
    upsample_soft_cross_entropy,
    upsample_topk_cross_entropy,
    upsample_tversky_loss,
)
from .ops.conv_transpose_add import conv_transpose_add
from .ops.cross_entropy import cross_entropy
from .ops.dilated_conv2d import dilated_conv2d
from .ops.upsample_add import upsample_add
from .ops.upsample_argmax import upsample_argmax
from .ops.upsample_cross_entropy import upsample_cross_entropy
from .ops.upsample_region_sums import RegionSums, upsample_region_sums

__version__ = "0.1.0"

__all__ = [
    "BilinearGrid",
    "CoordMap",
    "RegionSums",
    "bilinear_kernel",
    "check_target",
    "conv_transpose_add",
    "cross_entropy",
    "dilated_conv2d",
    "fuse",
    "rarefy",
    "upsample_add",
    "upsample_argmax",
    "upsample_binary_cross_entropy",
    "upsample_cross_entropy",
    "upsample_dice_loss",
    "upsample_focal_loss",
    "upsample_region_sums",
    "upsample_soft_cross_entropy",
    "upsample_topk_cross_entropy",
    "upsample_tversky_loss",
    "use_backend",
]
