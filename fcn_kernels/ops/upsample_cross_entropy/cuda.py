"""Launches the CUDA kernels of upsample_cross_entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import CUDA, device_and_stream

# For tests and benchmarks: True makes every block take the exact path (one exponential per pixel and class);
# 8, 4 or 2 rows of pixels for each thread rather than what suits the size (0).
force_exact = False
force_rows = 0


def upsample_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    loss: Tensor,
    grad: Tensor | None = None,
    scale: Tensor | None = None,
) -> None:
    """Writes ``loss`` and, unless None, ``grad`` (of the sum over pixels) and ``scale`` (the factor that it lacks)."""
    _launch(x, target, weight, pixel_weight, grid, ignore_index, reduction, label_smoothing, loss, grad, scale, None)


def upsample_cross_entropy_pixels(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    label_smoothing: float,
    loss: Tensor,
) -> None:
    """Writes ``loss``, one for each pixel."""
    _launch(x, target, weight, pixel_weight, grid, ignore_index, "sum", label_smoothing, None, None, None, loss)


def _launch(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    loss: Tensor | None,
    grad: Tensor | None,
    scale: Tensor | None,
    pixel_loss: Tensor | None,
) -> None:
    weight = None if weight is None else weight.detach().float().contiguous()
    pixel_weight = None if pixel_weight is None else pixel_weight.detach().float()
    numbers = CUDA.upsample_cross_entropy_workspace(x, grid, grad is not None, force_rows)
    workspace = torch.empty(numbers, dtype=torch.float32, device=x.device)
    CUDA.upsample_cross_entropy(
        x,
        target,
        weight,
        pixel_weight,
        grad,
        pixel_loss,
        loss,
        scale,
        workspace,
        grid,
        ignore_index,
        reduction == "mean",
        label_smoothing,
        force_exact,
        force_rows,
        *device_and_stream(x),
    )
