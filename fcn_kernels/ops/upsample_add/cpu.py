"""Launches the C++ kernels of upsample_add."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import C
from ...layout import gapless_rows, layout_of


def upsample_add(x: Tensor, skip: Tensor | None, grid: list[int], out: Tensor) -> None:
    """Writes ``out``, which is dense; ``x`` and ``skip`` are copied only where their layout is not ``out``'s."""
    if out.numel() == 0:
        return
    channels_last = layout_of(out) == "channels_last"
    x = gapless_rows(x, channels_last)
    skip = None if skip is None else gapless_rows(skip, channels_last)
    C.upsample_add(x, skip, out, grid, channels_last, torch.get_num_threads())


def upsample_add_backward(grad: Tensor, grid: list[int], grad_x: Tensor) -> None:
    """Writes ``grad_x``, the gradient of x, from ``grad``, that of the output."""
    if grad.numel() == 0:
        grad_x.zero_()
        return
    channels_last = layout_of(grad_x) == "channels_last"
    grad = gapless_rows(grad, channels_last)
    C.upsample_add_backward(grad, grad_x, grid, channels_last, torch.get_num_threads())
