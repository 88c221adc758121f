"""Filters of the paper: bilinear interpolation, and the rarefied ("à trous") filter."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_number, check_pair


def bilinear_kernel(kernel_size: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """``[k, k]``: the filter that FCN's transposed convolutions start from (CVPR 2015, section 3.3).

    The same numbers as ``upsample_filt`` of the authors' code. With stride ``s`` and ``k = 2 * s - s % 2`` (or
    ``2 * s - 1``) it interpolates: away from borders, the taps that meet in a pixel sum to 1. Raises ``ValueError`` for
    ``kernel_size`` below 1.
    """
    check_number("bilinear_kernel", "kernel_size", kernel_size, 1)
    factor = (kernel_size + 1) // 2
    center = (kernel_size - 1) / 2
    line = 1 - (torch.arange(kernel_size, dtype=torch.float64) - center).abs() / factor
    return torch.outer(line, line).to(dtype)


def rarefy(weight: Tensor, dilation: int | tuple[int, int]) -> Tensor:
    """The filter with zeros stuffed between its taps: f'_ij = f_{i/d, j/d} where d divides i and j, else 0.

    ``[O, I, k, l] -> [O, I, (k - 1) * d + 1, (l - 1) * d + 1]``, differentiable. CVPR 2015, section 3.2: a convolution
    with the rarefied filter at full resolution gives what shift-and-stitch gives. ``dilated_conv2d`` computes the same
    without touching the zeros. Raises ``ValueError`` for a weight that is not four-dimensional or a dilation below 1.
    """
    down, across = check_pair("rarefy", "dilation", dilation, 1)
    if not isinstance(weight, Tensor):
        raise TypeError(f"rarefy: weight must be a Tensor, got {type(weight).__name__}")
    if weight.dim() != 4 or weight.shape[2] < 1 or weight.shape[3] < 1:
        raise ValueError(f"rarefy: weight must be [O, I, k, l], got shape {tuple(weight.shape)}")
    out_channels, in_channels, height, width = weight.shape
    rare = weight.new_zeros((out_channels, in_channels, (height - 1) * down + 1, (width - 1) * across + 1))
    rare[:, :, ::down, ::across] = weight
    return rare
