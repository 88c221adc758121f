"""Launches the CUDA kernels of conv_transpose_add."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import CUDA, device_and_stream
from ...layout import gapless_rows, layout_of


def conv_transpose_add(x: Tensor, weight: Tensor, skip: Tensor | None, stride: int, crop: int, out: Tensor) -> None:
    """Writes ``out``, which is dense; ``x`` and ``skip`` are copied only where their layout is not ``out``'s."""
    if out.numel() == 0:
        return
    last = layout_of(out) == "channels_last"
    x = gapless_rows(x, last)
    skip = None if skip is None else gapless_rows(skip, last)
    CUDA.conv_transpose_add(x, weight, skip, out, stride, crop, last, *device_and_stream(out))


def conv_transpose_add_backward_x(grad: Tensor, weight: Tensor, stride: int, crop: int, grad_x: Tensor) -> None:
    """Writes ``grad_x``, the gradient of x, from ``grad``, that of the output."""
    if grad.numel() == 0:
        grad_x.zero_()
        return
    last = layout_of(grad_x) == "channels_last"
    grad = gapless_rows(grad, last)
    if last:  # a thread has neighbouring channels; the filters are small
        weight = weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    CUDA.conv_transpose_add_backward_x(grad_x, weight, grad, stride, crop, last, *device_and_stream(grad))


def conv_transpose_add_backward_weight(grad: Tensor, x: Tensor, stride: int, crop: int, grad_weight: Tensor) -> None:
    """Writes ``grad_weight``, the gradient of weight, from ``grad``, that of the output."""
    if grad.numel() == 0:
        grad_weight.zero_()
        return
    last = layout_of(grad) == "channels_last"
    x, grad = gapless_rows(x, last), gapless_rows(grad, last)
    sums = x.new_empty(
        _parts(x, grad_weight.shape[2], last), *grad_weight.shape[::2], grad_weight.shape[3], dtype=torch.float32
    )
    CUDA.conv_transpose_add_backward_weight(x, grad_weight, grad, sums, stride, crop, last, *device_and_stream(grad))


def _parts(x: Tensor, k: int, channels_last: bool) -> int:
    """In how many parts the pixels are summed: enough to fill a GPU, but of no fewer than 1024 pixels."""
    n, channels, h, w = x.shape
    blocks = k * -(-k // 4) * (-(-channels // 256) if channels_last else channels)
    return max(1, min(2048 // blocks, n * h * w // 1024))
