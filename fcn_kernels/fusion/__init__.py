"""``fuse``: unmodified PyTorch code whose upsampled scores are answered for by the operators."""

from __future__ import annotations

import inspect
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
    ``F.cross_entropy`` and ``nn.CrossEntropyLoss``; ``nll_loss`` of ``log_softmax``; over classes ``argmax``, ``max``
    and ``topk(1)``, also of ``softmax`` and ``log_softmax``, and ``amax`` of ``softmax``; ``+`` of a map of the same
    size and layout; slices (also one image of a batch), casts to a wider dtype, ``detach``, and resizing to the same
    size. Anything else makes the full tensor, as PyTorch would: the lazy tensor then *becomes* it. Results are
    PyTorch's but for rounding.

    What differs: ``type(x)`` is not ``torch.Tensor`` while a tensor is lazy; losses and sums have no second derivative;
    a gradient with respect to the upsampled scores must be asked for (``retain_grad``) before the loss is; scores may
    not be changed in place between ``F.interpolate`` and the use of its result (``RuntimeError``); scores of -inf
    exclude a class, where PyTorch makes NaN of them. The context holds for the thread that enters it. Code that
    ``torch.compile`` compiles, tracing, export, ``torch.func`` and checkpoints without reentry get full tensors.

    A trainer that looks at the signature of ``forward`` keeps it with ``model.forward = fuse(model.forward)``.

    Raises ``TypeError`` for a class, and for a function that has not run when it returns: a generator or coroutine.
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
        late = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
        if any(is_late(target) for is_late in late):
            raise TypeError(f"fuse: {target.__name__} has not run when it returns; use `with fuse():` within it")
        if callable(target) and not isinstance(target, type):
            return Context()(target)
        given = f"the class {target.__name__}" if isinstance(target, type) else type(target).__name__
        raise TypeError(f"fuse: give nothing, a function or an nn.Module, got {given}")

    def report(self) -> Report:
        """What was fused, what had to be made and why, in this process since it began or since ``clear``."""
        return reports.snapshot()

    def clear(self) -> None:
        """Begin a new report."""
        reports.clear()


fuse = _Fuse()
