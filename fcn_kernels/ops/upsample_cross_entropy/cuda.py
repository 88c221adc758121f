"""Launches the CUDA kernels of upsample_cross_entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import CUDA, device_and_stream
from ...loss import LossCall

# For tests and benchmarks: True makes every block take the exact path (one exponential per pixel and class);
# 8, 4 or 2 rows of pixels for each thread rather than what suits the size (0).
force_exact = False
force_rows = 0


def upsample_cross_entropy(
    call: LossCall, grid: list[int], loss: Tensor, grad: Tensor | None = None, scale: Tensor | None = None
) -> None:
    """Writes ``loss`` and, unless None, ``grad`` (of the sum over pixels) and ``scale`` (the factor that it lacks)."""
    _launch(call, grid, loss, grad, scale, None)


def upsample_cross_entropy_pixels(call: LossCall, grid: list[int], loss: Tensor) -> None:
    """Writes ``loss``, one for each pixel."""
    _launch(call, grid, None, None, None, loss)


def _launch(
    call: LossCall,
    grid: list[int],
    loss: Tensor | None,
    grad: Tensor | None,
    scale: Tensor | None,
    pixel_loss: Tensor | None,
) -> None:
    numbers = CUDA.upsample_cross_entropy_workspace(call.scores, grid, grad is not None, force_rows)
    workspace = torch.empty(numbers, dtype=torch.float32, device=call.scores.device)
    CUDA.upsample_cross_entropy(
        call.scores,
        call.target,
        *call.weights(),
        grad,
        pixel_loss,
        loss,
        scale,
        workspace,
        grid,
        *call.kernel_options,
        force_exact,
        force_rows,
        *device_and_stream(call.scores),
    )
