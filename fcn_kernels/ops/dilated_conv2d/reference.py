"""Dilated convolution with bias and ReLU in plain PyTorch: the specification."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def dilated_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, dilation: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    y = F.conv2d(x, weight, bias, padding=padding, dilation=dilation)
    return F.relu(y) if relu else y
