"""Launches the C++ kernel of upsample_cross_entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ...checks import raise_bad_label
from ...extension import C
from ...loss import LossCall

# True makes every block take the exact path (one exponential per pixel and class): for tests and benchmarks.
force_exact = False


def upsample_cross_entropy(call: LossCall, grid: list[int], loss: Tensor, grad: Tensor | None = None) -> None:
    """Writes ``loss`` and, unless None, its ``grad``."""
    _launch(call, grid, grad, None, loss)


def upsample_cross_entropy_pixels(call: LossCall, grid: list[int], loss: Tensor) -> None:
    """Writes ``loss``, one for each pixel."""
    _launch(call, grid, None, loss, None)


def _launch(
    call: LossCall, grid: list[int], grad: Tensor | None, pixel_loss: Tensor | None, loss: Tensor | None
) -> None:
    bad_pixel, _, _ = C.upsample_cross_entropy(
        call.scores,
        call.target,
        *call.weights(),
        grad,
        pixel_loss,
        loss,
        grid,
        *call.kernel_options,
        force_exact,
        torch.get_num_threads(),
    )
    if bad_pixel >= 0:
        raise_bad_label("upsample_cross_entropy", call.target, bad_pixel, call.scores.shape[1], call.ignore_index)
