"""The convolution that trunks are made of."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from fcn_kernels import dilated_conv2d

Pair = tuple[int, int]


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """``F.conv2d`` and, with ``relu``, ``F.relu``; on CPUs by ``fcn_kernels.dilated_conv2d``."""
    if x.device.type == "cpu" and stride == (1, 1) and groups == 1:
        return dilated_conv2d(x, weight, bias, dilation=dilation, padding=padding, relu=relu)
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return F.relu(y, inplace=True) if relu else y


class Convolution(nn.Conv2d):
    """``nn.Conv2d`` by ``convolve``, zeros around it; ReLU is an argument of the call, to be in the same pass."""

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        sizes = cast(tuple[Pair, Pair, Pair], (self.stride, self.padding, self.dilation))
        return convolve(x, self.weight, self.bias, *sizes, self.groups, relu)
