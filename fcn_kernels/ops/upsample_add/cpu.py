"""Launches the C++ kernels of upsample_add."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import C, optional_pointer, pointer
from ...layout import layout_of


def upsample_add(x: Tensor, skip: Tensor | None, grid: list[int], out: Tensor) -> None:
    """Writes ``out``, which is dense; ``x`` and ``skip`` are copied only where their layout is not ``out``'s."""
    if out.numel() == 0:
        return
    x = _in_layout_of(out, x)
    skip = None if skip is None else _in_layout_of(out, skip)
    C.upsample_add(pointer(x), optional_pointer(skip), pointer(out), grid, torch.get_num_threads())


def upsample_add_backward(grad: Tensor, grid: list[int], grad_x: Tensor) -> None:
    """Writes ``grad_x``, the gradient of x, from ``grad``, that of the output."""
    if grad.numel() == 0:
        grad_x.zero_()
        return
    C.upsample_add_backward(pointer(_in_layout_of(grad_x, grad)), pointer(grad_x), grid, torch.get_num_threads())


def _in_layout_of(out: Tensor, x: Tensor) -> Tensor:
    """``x`` itself if its rows (of pixels, or with channels_last of whole pixels) are stored like those of ``out``."""
    if layout_of(out) == "channels_last":
        if x.stride(1) == 1 and x.stride(3) == x.shape[1]:
            return x
        return x.contiguous(memory_format=torch.channels_last)
    return x if x.stride(3) == 1 else x.contiguous()
