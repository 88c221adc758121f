"""Launches the C++ kernel of upsample_region_sums."""

from __future__ import annotations

import torch
from torch import Tensor

from ...checks import raise_bad_label
from ...extension import C

# True makes every block take the exact path (one exponential per pixel and class): for tests and benchmarks.
force_exact = False


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
    bad_pixel, _, _ = C.upsample_region_sums(
        x, target, sums, weights, grad, grid, ignore_index, squared, force_exact, torch.get_num_threads()
    )
    if bad_pixel >= 0:
        raise_bad_label("upsample_region_sums", target, bad_pixel, x.shape[1], ignore_index)
