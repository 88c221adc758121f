"""Convolution of a small map by a large bank of filters (fc6) as one matrix product of the library, on CPUs.

The library's convolution reorders the filters in every pass, which takes longer than the products of few pixels.
Here they stay as they lie; what each pixel sees is copied, which is little.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dilated_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, dilation: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """``[N, O, H', W']``, channels_last, differentiable as often as wanted."""
    taps = (weight.shape[2], weight.shape[3])
    height, width = (x.shape[2 + a] + 2 * padding[a] - dilation[a] * (taps[a] - 1) for a in (0, 1))
    seen = F.unfold(x, taps, dilation, padding)
    if weight.is_contiguous():
        filters = weight.flatten(1)
    else:  # channels_last: taps first, then channels
        filters = weight.permute(0, 2, 3, 1).flatten(1)
        seen = seen.unflatten(1, (x.shape[1], taps[0] * taps[1])).transpose(1, 2).flatten(1, 2)
    seen = seen.transpose(0, 1).flatten(1)  # images side by side: one product, and one gradient of the filters
    y = filters @ seen if bias is None else torch.addmm(bias[:, None], filters, seen)
    y = y.view(weight.shape[0], x.shape[0], height, width).transpose(0, 1)
    y = y.contiguous(memory_format=torch.channels_last)
    return F.relu(y) if relu else y
