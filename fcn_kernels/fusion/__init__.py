"""``fuse``: unmodified PyTorch code whose upsampled scores are answered for by the operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from torch import nn

from . import labels, losses, tensors  # noqa: F401  (what operators answer)
from . import report as reports
from .context import Context
from .module import Fused
from .report import Report

Function = TypeVar("Function", bound=Callable[..., Any])


class _Fuse:
    """Code under which bilinear upsampling is put off, so that what reads the upsampled scores can do without them.

    A context manager, a decorator, or a wrapper of a module, of code that needs no change::

        with fuse():
            loss = F.cross_entropy(model(images), target)

        step = fuse(step)
        model = fuse(model)  # what the model returns stays lazy after forward

    ``F.interpolate(mode="bilinear")`` and what ends in it (``nn.Upsample``, the ``resize`` of libraries) give a lazy
    tensor, a ``torch.Tensor`` that knows coarse scores and where pixels sample them. The operators answer
    ``F.cross_entropy`` and ``nn.CrossEntropyLoss``, ``argmax`` and ``max`` over classes, ``max`` and ``amax`` of
    ``softmax`` over classes, ``+`` of a map of the same size, slices (also one image of a batch), casts to a wider
    dtype and ``detach``. Anything else makes the full tensor, as PyTorch would: the lazy tensor then *becomes* it.
    Results are PyTorch's but for rounding.

    What differs: ``type(x)`` is not ``torch.Tensor`` while a tensor is lazy; losses and sums have no second derivative;
    a gradient with respect to the upsampled scores must be asked for (``retain_grad``) before the loss is; scores may
    not be changed in place between ``F.interpolate`` and the use of its result (``RuntimeError``). The context holds
    for the thread that enters it. Code that ``torch.compile`` compiles, and tracing, get full tensors.
    """

    @overload
    def __call__(self) -> Context: ...
    @overload
    def __call__(self, target: nn.Module) -> Fused: ...
    @overload
    def __call__(self, target: Function) -> Function: ...
    def __call__(self, target: Any = None) -> Any:
        if target is None:
            return Context()
        if isinstance(target, nn.Module):
            return Fused(target)
        if callable(target):
            return Context()(target)
        raise TypeError(f"fuse: give nothing, a function or an nn.Module, got {type(target).__name__}")

    def report(self) -> Report:
        """What was fused, what had to be made and why, in this process since it began or since ``clear``."""
        return reports.snapshot()

    def clear(self) -> None:
        """Begin a new report."""
        reports.clear()


fuse = _Fuse()
