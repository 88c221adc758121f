"""Launches the CUDA kernels of dilated_conv2d."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import CUDA, device_and_stream
from .precision import tf32_allowed

# Blocks that keep a large GPU busy. A constant, not the number of multiprocessors at hand: results, which depend on how
# a sum is split, are the same on all of them.
MANY_BLOCKS = 264


def dilated_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, dilation: list[int], padding: list[int], out: Tensor
) -> None:
    """Writes ``out``. Tensors are dense and channels_last."""
    _convolve(x, weight, bias, dilation, padding, False, relu, out)


def dilated_conv2d_backward_x(
    grad: Tensor, weight: Tensor, dilation: list[int], padding: list[int], grad_x: Tensor
) -> None:
    """Writes ``grad_x``: a convolution of ``grad`` by the transposed filters, whose taps look the other way."""
    transposed = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last)
    _convolve(grad, transposed, None, dilation, padding, True, False, grad_x)


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: list[int],
    padding: list[int],
    transposed: bool,
    relu: bool,
    out: Tensor,
) -> None:
    CUDA.dilated_conv2d(
        x,
        weight,
        bias,
        out,
        dilation,
        padding,
        transposed,
        relu,
        tf32_allowed(),
        tile(out.shape[0] * out.shape[2] * out.shape[3], out.shape[1]),
        *device_and_stream(out),
    )


def dilated_conv2d_backward_weight(
    grad: Tensor, x: Tensor, dilation: list[int], padding: list[int], grad_weight: Tensor
) -> None:
    """Writes ``grad_weight``, summed over parts of the pixels in two stages where the filters alone are few blocks."""
    side, count = split(grad, grad_weight)
    parts = x.new_empty((count, grad_weight.numel()), dtype=torch.float32) if count > 1 else None
    CUDA.dilated_conv2d_backward_weight(
        grad,
        x,
        grad_weight,
        parts,
        dilation,
        padding,
        tf32_allowed(),
        side,
        *device_and_stream(x),
    )


def tile(pixels: int, channels: int) -> tuple[int, int]:
    """Pixels x channels of a block. Larger ones read less; there should be enough of them to go round."""
    for size in ((128, 128), (128, 64)):
        if channels >= size[1] and -(-pixels // size[0]) * -(-channels // size[1]) >= MANY_BLOCKS:
            return size
    return (64, 64)


def split(grad: Tensor, grad_weight: Tensor) -> tuple[int, int]:
    """The side of a block's tile of the filters, and the number of parts that the pixels are split into."""
    outputs, inputs, taps = grad_weight.shape[0], grad_weight.shape[1], grad_weight.shape[2] * grad_weight.shape[3]
    side = 128 if min(outputs, inputs) > 64 else 64
    blocks = -(-outputs // side) * -(-inputs // side) * taps
    pixels = grad.shape[0] * grad.shape[2] * grad.shape[3]
    # A part of fewer pixels would spend its time on starting and ending.
    return side, max(1, min(MANY_BLOCKS // blocks, pixels // 512))
