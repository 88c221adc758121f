"""The work of a computation, in PyTorch's way of counting it."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter of floating-point operations, silent, which also sees the convolutions of ``dilated_conv2d``.

    They count as what they compute, however they compute it: twice the multiply-adds of every output with every tap.
    """
    ops = torch.ops.fcn_kernels
    return FlopCounterMode(
        display=False,
        custom_mapping={
            ops.dilated_conv2d: _forward,
            ops.dilated_conv2d_backward_x: _backward_x,
            ops.dilated_conv2d_backward_weight: _backward_weight,
        },
    )


def _forward(x: torch.Size, weight: torch.Size, *_: Any, out_shape: torch.Size, **options: Any) -> int:
    return _work(out_shape, weight)


def _backward_x(grad: torch.Size, weight: torch.Size, *_: Any, **options: Any) -> int:
    return _work(grad, weight)


def _backward_weight(grad: torch.Size, *_: Any, out_shape: torch.Size, **options: Any) -> int:
    return _work(grad, out_shape)


def _work(maps: torch.Size, filters: torch.Size) -> int:
    return 2 * maps[0] * maps[2] * maps[3] * torch.Size(filters).numel()
