"""Bilinear upsampling with skip-add in plain PyTorch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor

from ...grid import BilinearGrid

Tap = tuple[Tensor, Tensor]  # of each output pixel along an axis: which input pixel, and its weight


def taps(grid: BilinearGrid, axis: int, input_size: int, dtype: torch.dtype, device: torch.device) -> list[Tap]:
    """The two input pixels that each output pixel of an axis samples, as (index, weight): weights
    ``max(0, 1 - |u - i|)``."""
    y = torch.arange(grid.size[axis], device=device)
    u = (grid.step[axis] * y + grid.origin[axis]).double() / grid.denominator[axis]
    if grid.border == "clamp":
        u = u.clamp(0, input_size - 1)
    first = u.floor()
    found = []
    for i in (first, first + 1):
        weight = torch.where((i >= 0) & (i < input_size), 1 - (u - i).abs(), 0)
        found.append((i.clamp(0, input_size - 1).long(), weight.to(dtype)))
    return found


def interpolate(x: Tensor, axis: int, pixels: list[Tap]) -> Tensor:
    """Along dim ``axis``. A tap of weight 0 counts for nothing, also where the score is not finite."""
    shape = [1] * x.dim()
    shape[axis] = -1
    parts = []
    for index, weight in pixels:
        weight = weight.view(shape)
        parts.append(torch.where(weight != 0, x.index_select(axis, index) * weight, 0))
    return parts[0] + parts[1]


def upsample(x: Tensor, grid: BilinearGrid) -> Tensor:
    """``x`` ``[N, C, h, w]`` sampled by ``grid``: ``[N, C, *grid.size]`` in float32, or float64 if ``x`` is."""
    x = x.double() if x.dtype == torch.float64 else x.float()
    for axis in (0, 1):
        x = interpolate(x, 2 + axis, taps(grid, axis, x.shape[2 + axis], x.dtype, x.device))
    return x


def upsample_add(x: Tensor, skip: Tensor | None, grid: BilinearGrid) -> Tensor:
    y = upsample(x, grid)
    return (y if skip is None else y + skip).to(x.dtype)
