"""What people write instead: the PyTorch spellings that the operators are compared with."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases import Outputs


def interpolate(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def bilinear_filter(channels: int, kernel_size: int, like: Tensor) -> Tensor:
    """``[channels, 1, k, k]``: the filter with which FCN initializes its transposed convolutions."""
    center = (kernel_size - 1) / 2
    line = 1 - (torch.arange(kernel_size) - center).abs() / ((kernel_size + 1) // 2)
    return (line[:, None] * line).to(like).expand(channels, 1, kernel_size, kernel_size).contiguous()


def depthwise(x: Tensor, weight: Tensor, stride: int, crop: int, size: tuple[int, int]) -> Tensor:
    """Transposed convolution channel by channel, then FCN's crop."""
    y = F.conv_transpose2d(x, weight, stride=stride, groups=x.shape[1])
    return y[:, :, crop : crop + size[0], crop : crop + size[1]]


def interpolation_matrix(size: int, output_size: int, like: Tensor) -> Tensor:
    """``[output_size, size]``: ``F.interpolate`` along one axis as a matrix."""
    return interpolate(torch.eye(size).to(like)[None, None], (output_size, size))[0, 0]


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Bilinear upsampling as two matrix products: the fastest plain spelling on many CPUs."""
    return rows @ x @ columns.T


def channels_last(x: Tensor) -> Tensor:
    """A leaf of its own in the layout channels_last."""
    return x.detach().clone(memory_format=torch.channels_last).requires_grad_(x.requires_grad)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.compile`` at the first call: only loading the compiler takes seconds."""
    compile_once = functools.cache(lambda: torch.compile(function, dynamic=False))
    return lambda *arguments: compile_once()(*arguments)


def with_gradient(loss: Tensor, *inputs: Tensor, grad: Tensor | None = None) -> Outputs:
    """The result and, for inputs that require it, their gradients."""
    wanted = [x for x in inputs if x.requires_grad]
    return (loss, *torch.autograd.grad(loss, wanted, grad)) if wanted else (loss,)
