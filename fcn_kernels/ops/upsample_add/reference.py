"""Bilinear upsampling with skip-add in plain PyTorch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor

from ...grid import BilinearGrid


def interpolation_matrix(
    grid: BilinearGrid, axis: int, input_size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Weight ``max(0, 1 - |u - i|)`` of input pixel i in output pixel y along one axis: ``[outputs, inputs]``."""
    y = torch.arange(grid.size[axis], device=device)
    u = (grid.step[axis] * y + grid.origin[axis]).double() / grid.denominator[axis]
    if grid.border == "clamp":
        u = u.clamp(0, input_size - 1)
    i = torch.arange(input_size, device=device)
    return (1 - (u[:, None] - i).abs()).clamp(min=0).to(dtype)


def upsample(x: Tensor, grid: BilinearGrid) -> Tensor:
    """``x`` ``[N, C, h, w]`` sampled by ``grid``: ``[N, C, *grid.size]`` in float32, or float64 if ``x`` is."""
    x = x.double() if x.dtype == torch.float64 else x.float()
    rows = interpolation_matrix(grid, 0, x.shape[2], x.dtype, x.device)
    columns = interpolation_matrix(grid, 1, x.shape[3], x.dtype, x.device)
    with torch.autocast(x.device.type, enabled=False):  # which would sum in half precision
        return rows @ x @ columns.T


def upsample_add(x: Tensor, skip: Tensor | None, grid: BilinearGrid) -> Tensor:
    y = upsample(x, grid)
    return (y if skip is None else y + skip).to(x.dtype)
