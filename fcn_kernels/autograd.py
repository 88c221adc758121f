"""Which calls autograd has to see, and gradients that cannot be differentiated again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def recorded(*inputs: Tensor | None) -> bool:
    """Whether a call must go through its ``autograd.Function``, which costs a short call a quarter of its time."""
    if torch.is_grad_enabled():
        for x in inputs:
            if x is not None and x.requires_grad:
                return True
    return torch.compiler.is_compiling()


def first_order_only(operator: str, grad: Tensor, *inputs: Tensor) -> Tensor:
    """``grad`` itself; differentiating it with respect to the ``inputs`` that it was computed from raises.

    ``once_differentiable`` is not enough: its result is not connected to the inputs, so with ``allow_unused`` second
    derivatives would silently be None; and a loss's gradient depends on the scores even where the incoming one needs no
    gradient.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return grad
    result: Tensor = _FirstOrderOnly.apply(operator, grad.detach(), *inputs)
    return result


class _FirstOrderOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operator: str, grad: Tensor, *inputs: Tensor) -> Tensor:
        ctx.operator = operator
        return grad

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError(
            f"{ctx.operator} has no second derivative; where one is needed, use backend='reference', which is "
            "plain PyTorch"
        )
