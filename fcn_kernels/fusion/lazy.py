"""A tensor of upsampled scores that is made when something asks for what only the whole of it can tell."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils import swap_tensors

from ..grid import BilinearGrid
from . import report

# What the wrapper itself tells: shape, layout, dtype, device, and whether there is a gradient.
_METADATA = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "layout", "ndim", "requires_grad")),
    *(getattr(Tensor, name).__get__ for name in ("grad_fn", "is_leaf", "is_cuda", "is_cpu", "is_sparse", "is_mps")),
    *(getattr(Tensor, name).__get__ for name in ("is_meta", "is_quantized", "is_nested", "itemsize", "nbytes")),
    *(Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.nelement, Tensor.stride, Tensor.is_contiguous),
    *(Tensor.is_floating_point, Tensor.is_complex, Tensor.is_inference, Tensor.element_size, Tensor.get_device),
    *(Tensor.__len__, torch.numel, torch.is_floating_point, torch.is_complex, torch.is_inference),
}

# torch functions and what answers them from coarse scores: filled by ``answers``.
ANSWERS: dict[Any, Callable[..., Any]] = {}


class Unanswered(Exception):  # noqa: N818
    """No operator answers this; the message says why. The full tensor is made."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Coarse scores ``[N, C, h, w]`` and where pixels sample them."""

    coarse: Tensor
    grid: BilinearGrid
    function: str = ""  # softmax or log_softmax, where the tensor is that of the upsampled scores over their classes
    batched: bool = True  # the tensor is [N, C, H, W]; else N is 1 and it is [C, H, W]


class Pending:
    """How a lazy tensor is made, under the modes in which it was asked for.

    ``recipe()`` reads and differentiates ``source``. A view is ``base[1](base[0])``, ``base[0]`` a lazy tensor.
    """

    def __init__(
        self,
        source: Tensor,
        recipe: Callable[[], Tensor],
        scores: Scores | None,
        base: tuple[Tensor, Callable[[Tensor], Tensor]] | None = None,
        differentiable: bool = True,
    ) -> None:
        self.grad = differentiable and torch.is_grad_enabled()
        self.inference = torch.is_inference_mode_enabled()
        if scores is not None and not self.grad:
            scores = replace(scores, coarse=scores.coarse.detach())
        self.source, self.recipe, self.scores, self.base = source, recipe, scores, base
        self.version = None if source.is_inference() else source._version
        self.full: Tensor | None = None  # where the lazy tensor could not become it

    def check(self) -> None:
        if self.version is not None and self.source._version != self.version:
            raise RuntimeError(
                "fuse: the scores given to F.interpolate were changed in place before the upsampled ones were used; "
                "change a copy, or run this part of the network without fuse"
            )

    def make(self) -> Tensor:
        with torch.inference_mode(self.inference), torch.set_grad_enabled(self.grad):
            if self.base is not None:
                return self.base[1](materialise(self.base[0]))
            return self.made()

    def made(self) -> Tensor:
        """From the source, differentiable where gradients are enabled."""
        self.check()
        with torch._C.DisableTorchFunction(), torch.autocast(self.source.device.type, enabled=False):
            return self.recipe()


class LazyTensor(Tensor):
    """See the module. Becomes a plain ``torch.Tensor``, in place, when it is made."""

    _pending: Pending

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA and args and is_lazy(args[0]):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        why = "no operator answers it"
        if func in ANSWERS:
            try:
                return ANSWERS[func](*args, **kwargs)
            except Unanswered as reason:
                why = str(reason)
        asked = f"{_name(func)} ({why})"
        args, kwargs = tuple(_made(x, asked) for x in args), {name: _made(x, asked) for name, x in kwargs.items()}
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """For what comes past ``__torch_function__``, as an ``autograd.Function`` of the user's.

        Autograd is above and has recorded the call, so this is about values only, and they are not kept.
        """
        if func._schema.is_mutable:
            raise RuntimeError(f"fuse: {func} would change a tensor that is not made yet; clone() it before")
        values = pytree.tree_map_only(LazyTensor, _value, (args, kwargs or {}))
        return func(*values[0], **values[1])


def _made(argument: Any, asked: str) -> Any:
    if isinstance(argument, (tuple, list, dict)):
        return pytree.tree_map_only(LazyTensor, lambda x: make(x, asked), argument)
    return make(argument, asked) if isinstance(argument, LazyTensor) else argument


def _value(x: LazyTensor) -> Tensor:
    if x._pending.full is not None:
        return x._pending.full.detach()
    _count(x, "a function called past Python")
    return x._pending.make().detach()


def _name(func: Any) -> str:
    name = getattr(func, "__name__", str(func))
    if name in ("__get__", "__set__"):
        name = f"Tensor.{getattr(getattr(func, '__self__', None), '__name__', name)}"
    return str(name)


def is_lazy(x: object) -> bool:
    """Whether ``x`` is a lazy tensor that has not been made."""
    pending = _pending(x)
    return pending is not None and pending.full is None


def _pending(x: object) -> Pending | None:
    # Another thread may make x at any time, and what has become a plain tensor has no such attribute.
    return getattr(x, "_pending", None) if type(x) is LazyTensor else None


def pending_of(x: Tensor) -> Pending:
    pending = _pending(x)
    if pending is None or pending.full is not None:
        raise Unanswered("it was made before")
    return pending


def scores_of(x: object) -> Scores:
    """What operators can be given for ``x``; raises ``Unanswered`` where there is no such thing."""
    if not isinstance(x, Tensor) or not is_lazy(x):
        raise Unanswered("another argument is the lazy tensor, or it was made before")
    pending = pending_of(x)
    if pending.base is not None:
        if not is_lazy(pending.base[0]):
            raise Unanswered("what it is a view of was made before")
        scores_of(pending.base[0])
    if pending.scores is None:
        raise Unanswered("only its own values tell")
    pending.check()
    return pending.scores


def outline(x: Tensor) -> Tensor:
    """``x`` without values: what PyTorch makes of it has the shape, strides and dtype of what it makes of ``x``."""
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def upsampled(scores: Scores, recipe: Callable[[], Tensor], like: Tensor) -> Tensor:
    """The lazy tensor of ``scores``, which ``recipe`` makes. It has the shape, strides and dtype of ``like``."""
    return _lazy(Pending(scores.coarse, recipe, scores), like, scores.coarse.device)


def derived(
    x: Tensor, function: Callable[[Tensor], Tensor], like: Tensor, scores: Scores | None = None, *, view: bool = False
) -> Tensor:
    """The lazy tensor ``function(x)`` of a lazy ``x``; ``scores`` if operators can answer for it. See ``upsampled``."""
    of = pending_of(x)
    pending = Pending(of.source, lambda: function(of.recipe()), scores, (x, function) if view else None, of.grad)
    return _lazy(pending, like, x.device if scores is None else scores.coarse.device)


def _lazy(pending: Pending, like: Tensor, device: torch.device) -> Tensor:
    if pending.grad and pending.source.requires_grad:
        return _Connected.apply(pending.source, pending, like, device)  # type: ignore[no-any-return]
    return _wrap(pending, like, device)


def _wrap(pending: Pending, like: Tensor, device: torch.device) -> LazyTensor:
    wrapper: LazyTensor = Tensor._make_wrapper_subclass(
        LazyTensor,
        like.shape,
        strides=like.stride(),
        storage_offset=like.storage_offset(),
        dtype=like.dtype,
        device=device,
    )
    wrapper._pending = pending
    return wrapper


class _Connected(torch.autograd.Function):
    """Ties the wrapper to the graph, for its gradient's sake where an ``autograd.Function`` is given the wrapper."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, pending: Pending, like: Tensor, device: torch.device) -> Tensor:
        ctx.pending = pending
        return _wrap(pending, like, device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        again = torch.is_grad_enabled()  # the gradient is to be differentiated itself
        with torch.enable_grad():
            full = ctx.pending.made()
            return torch.autograd.grad(full, ctx.pending.source, grad, create_graph=again)[0], None, None, None


_making = threading.RLock()


def materialise(x: Tensor) -> Tensor:
    """The full tensor. ``x`` itself becomes it, unless something else holds on to what ``x`` was."""
    with _making:
        pending = _pending(x)
        if pending is None:
            return x
        if pending.full is not None:
            return pending.full
        full = pending.make()
        full.__dict__.update({name: value for name, value in x.__dict__.items() if name != "_pending"})
        try:
            with torch._C.DisableTorchFunctionSubclass():
                swap_tensors(x, full)
        except RuntimeError:  # a weak reference, or C++ in the middle of a call
            pending.full = full
            return full
        return x


def make(x: Tensor, asked: str) -> Tensor:
    """``materialise``, and the report says what it was asked for."""
    if is_lazy(x):
        _count(x, asked)
    return materialise(x)


def _count(x: Tensor, asked: str) -> None:
    report.count_made(f"{asked}: {str(x.dtype).removeprefix('torch.')} {list(x.shape)}")
