"""Sums, parts and casts of a lazy tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..backend import DTYPES
from ..layout import layout_of
from ..ops.upsample_add import upsample_add
from . import report
from .answers import answers, size_of
from .lazy import Scores, Unanswered, derived, is_lazy, make, outline, scores_of


@answers(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
def add(input: Tensor, other: Tensor, *, alpha: float = 1) -> Tensor:
    upsampled, skip = (input, other) if is_lazy(input) else (other, input)
    scores = scores_of(upsampled)
    if scores.function or not scores.batched or alpha != 1:
        raise Unanswered("of probabilities, of one image, or with alpha")
    if is_lazy(skip):
        skip = make(skip, "+ (the other is lazy, too)")
    if type(skip) is not Tensor or skip.shape != upsampled.shape or skip.dtype != upsampled.dtype:
        raise Unanswered("the other is no made tensor of the same shape and dtype")
    if layout_of(skip) != layout_of(upsampled) or _order(skip) != _order(upsampled):
        raise Unanswered("the other has another layout")
    result = upsample_add(scores.coarse, skip, grid=scores.grid)
    report.count_fused(f"+ of {size_of(scores)}")
    return result


def _order(x: Tensor) -> list[int]:
    """Dimensions from the outermost in memory to the innermost."""
    strides = x.stride()
    return sorted(range(4), key=lambda dim: strides[dim], reverse=True)


@answers(Tensor.detach, torch.detach)
def detach(input: Tensor) -> Tensor:
    scores = scores_of(input)
    with torch.no_grad():
        return _view(input, scores, Tensor.detach)


@answers(Tensor.contiguous)
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
    if scores.function or narrower or coarse.dtype not in DTYPES or "memory_format" in kwargs:
        raise Unanswered("of probabilities, to a dtype that holds less, or to another layout")
    like = outline(input).to(coarse.dtype, copy=True)
    return derived(input, lambda x: function(x, *args, **kwargs), like, replace(scores, coarse=coarse))


for _function in (Tensor.to, Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.type_as):
    answers(_function)(partial(_cast, _function))
for _function in (Tensor.cpu, Tensor.cuda):
    answers(_function)(partial(_cast, _function))


@answers(Tensor.__getitem__)
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
    if scores.function and len(range(scores.coarse.shape[1])[classes]) < scores.coarse.shape[1]:
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
    return Scores(coarse, cut_grid, scores.function, batched)


@answers(Tensor.unsqueeze, torch.unsqueeze)
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    scores = scores_of(input)
    if scores.batched or dim not in (0, -4):
        raise Unanswered(f"at dim {dim}")
    return _view(input, replace(scores, batched=True), lambda x: x.unsqueeze(0))


@answers(Tensor.squeeze, torch.squeeze)
def squeeze(input: Tensor, dim: int | None = None) -> Tensor:
    scores = scores_of(input)
    if not scores.batched or dim not in (0, -4) or scores.coarse.shape[0] != 1:
        raise Unanswered(f"at dim {dim}")
    return _view(input, replace(scores, batched=False), lambda x: x.squeeze(0))


def _view(input: Tensor, scores: Scores, view: Callable[[Tensor], Tensor]) -> Tensor:
    return derived(input, view, view(outline(input)), scores, view=True)
