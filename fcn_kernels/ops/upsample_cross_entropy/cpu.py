"""Launches the C++ kernel of upsample_cross_entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ...checks import raise_bad_label
from ...extension import C

# True makes every block take the exact path (one exponential per pixel and class): for tests and benchmarks.
force_exact = False


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
) -> None:
    """Writes ``loss`` and, unless None, its ``grad``."""
    _launch(x, target, weight, pixel_weight, grid, ignore_index, reduction, label_smoothing, grad, None, loss)


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
    _launch(x, target, weight, pixel_weight, grid, ignore_index, "none", label_smoothing, None, loss, None)


def _launch(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    grad: Tensor | None,
    pixel_loss: Tensor | None,
    loss: Tensor | None,
) -> None:
    sums = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight = None if weight is None else weight.detach().to(sums).contiguous()
    pixel_weight = None if pixel_weight is None else pixel_weight.detach().to(sums)
    bad_pixel, _, _ = C.upsample_cross_entropy(
        x,
        target,
        weight,
        pixel_weight,
        grad,
        pixel_loss,
        loss,
        grid,
        ignore_index,
        reduction == "mean",
        label_smoothing,
        force_exact,
        torch.get_num_threads(),
    )
    if bad_pixel >= 0:
        raise_bad_label("upsample_cross_entropy", target, bad_pixel, x.shape[1], ignore_index)
