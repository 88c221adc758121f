"""Launches the C++ kernels of conv_transpose_add."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import C
from ...layout import gapless_rows, layout_of


def conv_transpose_add(x: Tensor, weight: Tensor, skip: Tensor | None, stride: int, crop: int, out: Tensor) -> None:
    """Writes ``out``, which is dense; ``x`` and ``skip`` are copied only where their layout is not ``out``'s."""
    if out.numel() == 0:
        return
    last = layout_of(out) == "channels_last"
    x = gapless_rows(x, last)
    skip = None if skip is None else gapless_rows(skip, last)
    C.conv_transpose_add(x, weight, skip, out, stride, crop, last, torch.get_num_threads())


def conv_transpose_add_backward_x(grad: Tensor, weight: Tensor, stride: int, crop: int, grad_x: Tensor) -> None:
    """Writes ``grad_x``, the gradient of x, from ``grad``, that of the output."""
    if grad.numel() == 0:
        grad_x.zero_()
        return
    last = layout_of(grad_x) == "channels_last"
    grad = gapless_rows(grad, last)
    C.conv_transpose_add_backward_x(grad_x, weight, None, grad, stride, crop, last, torch.get_num_threads())


def conv_transpose_add_backward_weight(grad: Tensor, x: Tensor, stride: int, crop: int, grad_weight: Tensor) -> None:
    """Writes ``grad_weight``, the gradient of weight, from ``grad``, that of the output."""
    if grad.numel() == 0:
        grad_weight.zero_()
        return
    last = layout_of(grad) == "channels_last"
    x, grad = gapless_rows(x, last), gapless_rows(grad, last)
    C.conv_transpose_add_backward_weight(x, grad_weight, None, grad, stride, crop, last, torch.get_num_threads())
