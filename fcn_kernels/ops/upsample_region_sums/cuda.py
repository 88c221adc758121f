"""Launches the CUDA kernels of upsample_region_sums."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import CUDA, device_and_stream


def upsample_region_sums(
    x: Tensor, target: Tensor, grid: list[int], ignore_index: int, squared: bool, sums: Tensor
) -> None:
    """Writes ``sums`` ``[3, N, C]``."""
    _launch(x, target, sums, None, None, grid, ignore_index, squared)


def upsample_region_sums_backward(
    x: Tensor, target: Tensor, weights: Tensor, grid: list[int], ignore_index: int, squared: bool, grad: Tensor
) -> None:
    """Writes ``grad`` of ``x``, from ``weights`` ``[2, N, C]``: the incoming gradients of the first two sums."""
    _launch(x, target, None, weights, grad, grid, ignore_index, squared)


def _launch(
    x: Tensor,
    target: Tensor,
    sums: Tensor | None,
    weights: Tensor | None,
    grad: Tensor | None,
    grid: list[int],
    ignore_index: int,
    squared: bool,
) -> None:
    numbers = CUDA.upsample_region_sums_workspace(x, grid, grad is not None)
    workspace = torch.empty(numbers, dtype=torch.float32, device=x.device)
    CUDA.upsample_region_sums(
        x, target, sums, weights, grad, workspace, grid, ignore_index, squared, *device_and_stream(x)
    )
