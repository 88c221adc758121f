"""What the tests of fuse share: a program run by PyTorch and under fuse, from the same coarse scores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcn_kernels import fuse
from fcn_kernels.fusion.report import Report

Program = Callable[[Tensor], Any]

COARSE = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
TARGET = torch.randint(0, 3, (2, 16, 20), generator=torch.Generator().manual_seed(2))
SKIP = torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(3))


def up(x: Tensor, size: tuple[int, int] = (16, 20)) -> Tensor:
    return F.interpolate(x, size, mode="bilinear")


def loss_of(x: Tensor) -> Tensor:
    return F.cross_entropy(up(x), TARGET)


def fused() -> int:
    return fuse.report().fused.total()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor, *, size: tuple[int, int] = (16, 20)) -> Tensor:
        return up(self.norm(self.score(x)), size)

    def labels(self, x: Tensor) -> Tensor:
        return self(x).argmax(1)  # type: ignore[no-any-return]


@dataclass
class Run:
    """What a program gave, the gradient of it (summed) at the coarse scores, and what was reported."""

    result: Any
    grad: Tensor | None
    report: Report


def run(program: Program, fused: bool) -> Run:
    x = COARSE.clone().requires_grad_()
    fuse.clear()
    with fuse() if fused else contextlib.nullcontext():
        result = program(x)
    report = fuse.report()
    derivable = [y for y in tensors(result) if y.requires_grad]
    total: Any = sum((y.double() * torch.linspace(-1, 2, y.numel()).view_as(y)).sum() for y in derivable)
    grad = torch.autograd.grad(total, x)[0] if derivable else None
    return Run(result, grad, report)


def tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [y for part in result for y in tensors(part)] if isinstance(result, (tuple, list)) else []


def assert_same(got: Any, want: Any) -> None:
    """The same but for rounding: types, shapes, strides, dtypes, and whether there is a gradient."""
    if isinstance(want, Tensor):
        assert isinstance(got, Tensor)
        assert (got.shape, got.stride(), got.dtype) == (want.shape, want.stride(), want.dtype)
        assert got.requires_grad == want.requires_grad
        torch.testing.assert_close(got.detach(), want.detach(), equal_nan=True)
    elif isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
    else:
        assert got == want


def assert_as_pytorch(program: Program, want: Run | None = None) -> Run:
    """Under fuse as without (``want``); the run under fuse."""
    want, got = want or run(program, False), run(program, True)
    assert_same(got.result, want.result)
    assert (got.grad is None) == (want.grad is None)
    if want.grad is not None:
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-4, atol=1e-5)
    return got
