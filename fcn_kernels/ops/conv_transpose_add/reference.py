"""Learnable depthwise transposed convolution, cropped, with skip-add in plain PyTorch: the specification."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def conv_transpose_add(
    x: Tensor, weight: Tensor, skip: Tensor | None, stride: int, crop: int, size: tuple[int, int]
) -> Tensor:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    y = F.conv_transpose2d(x.to(dtype), weight.to(dtype), stride=stride, groups=x.shape[1])
    y = y[:, :, crop : crop + size[0], crop : crop + size[1]]
    return (y if skip is None else y + skip).to(x.dtype)
