"""Launches the CUDA kernels of upsample_add."""

from __future__ import annotations

from torch import Tensor

from ...extension import CUDA, device_and_stream
from ...layout import gapless_rows, layout_of


def upsample_add(x: Tensor, skip: Tensor | None, grid: list[int], out: Tensor) -> None:
    """Writes ``out``, which is dense; ``x`` and ``skip`` are copied only where their layout is not ``out``'s."""
    if out.numel() == 0:
        return
    channels_last = layout_of(out) == "channels_last"
    x = gapless_rows(x, channels_last)
    skip = None if skip is None else gapless_rows(skip, channels_last)
    CUDA.upsample_add(x, skip, out, grid, channels_last, *device_and_stream(out))


def upsample_add_backward(grad: Tensor, grid: list[int], grad_x: Tensor) -> None:
    """Writes ``grad_x``, the gradient of x, from ``grad``, that of the output."""
    if grad.numel() == 0:
        grad_x.zero_()
        return
    channels_last = layout_of(grad_x) == "channels_last"
    grad = gapless_rows(grad, channels_last)
    CUDA.upsample_add_backward(grad, grad_x, grid, channels_last, *device_and_stream(grad_x))
