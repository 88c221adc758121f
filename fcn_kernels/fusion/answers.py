"""What operators answer for a lazy tensor. Each function has the parameters of the torch functions it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backend import DTYPES
from ..ops.upsample_add import upsample_add
from ..ops.upsample_argmax import upsample_argmax
from ..ops.upsample_cross_entropy import upsample_cross_entropy
from . import report
from .interpolate import autocast_dtype
from .lazy import ANSWERS, Scores, Unanswered, is_lazy, lazy, make, pending_of, scores_of


def _answers(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(answer: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                return answer(*args, **kwargs)
            except (TypeError, ValueError) as error:
                # Of the operators, or an argument that is unknown here. PyTorch answers, or raises its own.
                raise Unanswered(str(error)) from None

        for function in functions:
            ANSWERS[function] = checked
        return answer

    return register


def _size(scores: Scores) -> str:
    return f"[{scores.coarse.shape[0]}, {scores.coarse.shape[1]}, {scores.grid.size[0]}, {scores.grid.size[1]}]"


@_answers(F.cross_entropy)
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    scores = scores_of(input)
    if scores.softmax or not scores.batched or size_average is not None or reduce is not None:
        raise Unanswered("of probabilities, of one image, or with size_average or reduce")
    if type(target) is not Tensor or target.dtype != torch.int64:
        raise Unanswered("the target is no tensor of int64 labels")
    dtype = autocast_dtype(_cross_entropy_of, input)
    if weight is not None and weight.dtype not in (input.dtype, dtype):
        raise Unanswered(f"the weight is {weight.dtype} and the scores are {input.dtype}")
    loss = upsample_cross_entropy(
        scores.coarse,
        target,
        weight,
        grid=scores.grid,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )
    if reduction == "mean":
        # Where no pixel counts, PyTorch's mean is NaN and the operator's 0. A GPU is not waited for.
        if loss.is_cpu and loss.item() == 0:
            raise Unanswered("the loss is 0")
        if not loss.is_cpu:
            loss = torch.where(_any_counts(target, weight, ignore_index), loss, torch.nan)
    report.count_fused(f"cross_entropy of {_size(scores)}")
    return loss.to(dtype)


def _cross_entropy_of(x: Tensor) -> Tensor:
    return F.cross_entropy(x, torch.zeros(1, 1, 1, dtype=torch.int64, device=x.device))


def _any_counts(target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    counts = target != ignore_index
    if weight is not None:
        counts &= (weight != 0)[target.clamp(0, len(weight) - 1)]
    return counts.any()


def _class_dim(scores: Scores, dim: Any) -> int:
    """``dim``, counted from the front, if it is that of the classes."""
    front = 1 if scores.batched else 0
    if not isinstance(dim, int) or dim not in (front, -3):
        raise Unanswered(f"over dim {dim}")
    return front


def _map(scores: Scores, result: Tensor, keepdim: bool) -> Tensor:
    """Of an operator's ``[N, H, W]`` what torch gives for the lazy tensor."""
    result = result if scores.batched else result[0]
    return result.unsqueeze(-3) if keepdim else result


def _labels(scores: Scores, keepdim: bool) -> Tensor:
    labels = upsample_argmax(scores.coarse, grid=scores.grid, dtype=torch.int64)
    assert isinstance(labels, Tensor)
    return _map(scores, labels, keepdim)


@_answers(torch.argmax, Tensor.argmax)
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    scores = scores_of(input)
    _class_dim(scores, dim)
    labels = _labels(scores, keepdim)
    report.count_fused(f"argmax of {_size(scores)}")
    return labels


@_answers(torch.max, Tensor.max)
def max_(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    scores = scores_of(input)
    front = _class_dim(scores, dim)
    if scores.softmax and not (input.requires_grad and torch.is_grad_enabled()):
        values, labels = _confidence(scores, input.dtype, keepdim)
    else:
        labels = _labels(scores, keepdim)
        pending = pending_of(input)
        like = torch.empty(labels.shape, dtype=input.dtype, device="meta")
        values = lazy(pending.source, lambda: pending.recipe().max(front, keepdim).values, like, labels.device)
    report.count_fused(f"max of {'the softmax of ' if scores.softmax else ''}{_size(scores)}")
    return torch.return_types.max((values, labels))


@_answers(torch.amax, Tensor.amax)
def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    scores = scores_of(input)
    _class_dim(scores, dim)
    if not scores.softmax or (input.requires_grad and torch.is_grad_enabled()):
        raise Unanswered("operators give the largest probability, without its gradient")
    values, _ = _confidence(scores, input.dtype, keepdim)
    report.count_fused(f"amax of the softmax of {_size(scores)}")
    return values


def _confidence(scores: Scores, dtype: torch.dtype, keepdim: bool) -> tuple[Tensor, Tensor]:
    labels, confidence = upsample_argmax(scores.coarse, grid=scores.grid, confidence=True, dtype=torch.int64)
    return _map(scores, confidence.to(dtype), keepdim), _map(scores, labels, keepdim)


@_answers(F.softmax)
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    scores = scores_of(input)
    front = _class_dim(scores, dim)
    if scores.softmax or dtype not in (None, input.dtype):
        raise Unanswered("of a softmax, or with a dtype")
    dtype = autocast_dtype(_softmax_of, input)
    pending = pending_of(input)
    like = torch.empty_strided(input.shape, input.stride(), dtype=dtype, device="meta")
    probabilities = replace(scores, softmax=True)
    recipe = lambda: pending.recipe().softmax(front, dtype=dtype)  # noqa: E731
    return lazy(pending.source, recipe, like, input.device, probabilities)


@_answers(torch.softmax, Tensor.softmax)
def softmax_(input: Tensor, dim: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    return softmax(input, dim, dtype=dtype)  # type: ignore[no-any-return]


def _softmax_of(x: Tensor) -> Tensor:
    return x.softmax(1)


@_answers(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
def add(input: Tensor, other: Tensor, *, alpha: float = 1) -> Tensor:
    upsampled, skip = (input, other) if is_lazy(input) else (other, input)
    scores = scores_of(upsampled)
    if scores.softmax or not scores.batched or alpha != 1:
        raise Unanswered("of probabilities, of one image, or with alpha")
    if is_lazy(skip):
        skip = make(skip, "+ (the other is lazy, too)")
    if type(skip) is not Tensor or skip.shape != upsampled.shape or skip.dtype != upsampled.dtype:
        raise Unanswered("the other is no made tensor of the same shape and dtype")
    result = upsample_add(scores.coarse, skip, grid=scores.grid)
    report.count_fused(f"+ of {_size(scores)}")
    return result


@_answers(Tensor.detach, torch.detach)
def detach(input: Tensor) -> Tensor:
    scores = scores_of(input)
    with torch.no_grad():
        return _view(input, scores, Tensor.detach)


@_answers(Tensor.contiguous)
def contiguous(input: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    scores_of(input)
    if not input.is_contiguous(memory_format=memory_format):
        raise Unanswered("it has another layout")
    return input


def _cast(function: Callable[..., Tensor], input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """To a dtype that holds all of the old one's values, or to another device."""
    if not is_lazy(input):  # but what it is cast like
        with torch._C.DisableTorchFunctionSubclass():
            return function(input, *args, **kwargs)
    scores = scores_of(input)
    coarse = function(scores.coarse, *args, **kwargs)
    if coarse is scores.coarse:
        return input
    narrower = torch.promote_types(input.dtype, coarse.dtype) != coarse.dtype
    if scores.softmax or narrower or coarse.dtype not in DTYPES or "memory_format" in kwargs:
        raise Unanswered("of probabilities, to a dtype that holds less, or to another layout")
    pending = pending_of(input)
    like = torch.empty_strided(input.shape, input.stride(), dtype=coarse.dtype, device="meta")
    recipe = lambda: function(pending.recipe(), *args, **kwargs)  # noqa: E731
    return lazy(pending.source, recipe, like, coarse.device, replace(scores, coarse=coarse))


for _function in (Tensor.to, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.type_as):
    _answers(_function)(partial(_cast, _function))
for _function in (Tensor.cpu, Tensor.cuda):
    _answers(_function)(partial(_cast, _function))


@_answers(Tensor.__getitem__)
def getitem(input: Tensor, index: Any) -> Tensor:
    scores = scores_of(input)
    return _view(input, _sliced(scores, index), lambda x: x[index])


def _sliced(scores: Scores, index: Any) -> Scores:
    """The scores of ``x[index]``: of the images, classes and pixels that slices leave, or of one image alone."""
    wanted = list(index) if isinstance(index, tuple) else [index]
    dims = 4 if scores.batched else 3
    if Ellipsis in [x for x in wanted if not isinstance(x, Tensor)]:
        at = [x is Ellipsis for x in wanted].index(True)
        wanted[at : at + 1] = [slice(None)] * (dims - len(wanted) + 1)
    wanted += [slice(None)] * (dims - len(wanted))
    images = wanted.pop(0) if scores.batched else slice(None)
    batched = scores.batched and not isinstance(images, int)
    if isinstance(images, int) and not isinstance(images, bool):
        images = slice(images, images + 1 or None)
    if len(wanted) != 3 or not all(isinstance(x, slice) for x in (images, *wanted)):
        raise Unanswered("by an index that is no slice")
    classes, rows, columns = wanted
    if scores.softmax and len(range(scores.coarse.shape[1])[classes]) < scores.coarse.shape[1]:
        raise Unanswered("classes of probabilities")
    grid = scores.grid
    axes = [
        (len(range(size)[cut]), step * (cut.step or 1), origin + step * range(size)[cut].start)
        for cut, size, step, origin in zip((rows, columns), grid.size, grid.step, grid.origin, strict=True)
    ]
    sizes, steps, origins = ((row, column) for row, column in zip(*axes, strict=True))
    coarse = scores.coarse[images, classes]
    if 0 in coarse.shape or 0 in sizes:
        raise Unanswered("nothing is left")
    cut_grid = replace(grid, size=sizes, step=steps, origin=origins)
    return Scores(coarse, cut_grid, scores.softmax, batched)


@_answers(Tensor.unsqueeze, torch.unsqueeze)
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    scores = scores_of(input)
    if scores.batched or dim not in (0, -4):
        raise Unanswered(f"at dim {dim}")
    return _view(input, replace(scores, batched=True), lambda x: x.unsqueeze(0))


@_answers(Tensor.squeeze, torch.squeeze)
def squeeze(input: Tensor, dim: int | None = None) -> Tensor:
    scores = scores_of(input)
    if not scores.batched or dim not in (0, -4) or scores.coarse.shape[0] != 1:
        raise Unanswered(f"at dim {dim}")
    return _view(input, replace(scores, batched=False), lambda x: x.squeeze(0))


def _view(input: Tensor, scores: Scores, view: Callable[[Tensor], Tensor]) -> Tensor:
    """The lazy tensor that is ``view(input)``, of ``scores``."""
    pending = pending_of(input)
    like = torch.empty_strided(input.shape, input.stride(), dtype=input.dtype, device="meta")
    recipe = lambda: view(pending.recipe())  # noqa: E731
    return lazy(pending.source, recipe, view(like), input.device, scores, base=(input, view))
