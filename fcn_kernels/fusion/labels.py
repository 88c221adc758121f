"""Labels, probabilities and the largest of them, of a lazy tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.upsample_argmax import upsample_argmax
from . import report
from .answers import answers, class_dim, name_of
from .interpolate import autocast_dtype
from .lazy import Scores, Unanswered, derived, scores_of


def _map(scores: Scores, result: Tensor, keepdim: bool) -> Tensor:
    """Of an operator's ``[N, H, W]`` what torch gives for the lazy tensor."""
    result = result if scores.batched else result[0]
    return result.unsqueeze(-3) if keepdim else result


def _labels(scores: Scores, keepdim: bool) -> Tensor:
    labels = upsample_argmax(scores.coarse, grid=scores.grid, dtype=torch.int64)
    assert isinstance(labels, Tensor)
    return _map(scores, labels, keepdim)


def _largest(input: Tensor, scores: Scores, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Values, lazy unless an operator gives them, and labels."""
    if scores.function == "softmax" and not (input.requires_grad and torch.is_grad_enabled()):
        return _confidence(scores, input.dtype, keepdim)
    labels = _labels(scores, keepdim)
    like = torch.empty(labels.shape, dtype=input.dtype, device="meta")
    return derived(input, lambda x: x.max(-3, keepdim).values, like), labels


def _confidence(scores: Scores, dtype: torch.dtype, keepdim: bool) -> tuple[Tensor, Tensor]:
    labels, confidence = upsample_argmax(scores.coarse, grid=scores.grid, confidence=True, dtype=torch.int64)
    return _map(scores, confidence.to(dtype), keepdim), _map(scores, labels, keepdim)


@answers(torch.argmax, Tensor.argmax)
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    scores = scores_of(input)
    class_dim(scores, dim)
    labels = _labels(scores, keepdim)
    report.count_fused(f"argmax of {name_of(scores)}")
    return labels


@answers(torch.max, Tensor.max)
def max_(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    scores = scores_of(input)
    class_dim(scores, dim)
    largest = _largest(input, scores, keepdim)
    report.count_fused(f"max of {name_of(scores)}")
    return torch.return_types.max(largest)


@answers(torch.topk, Tensor.topk)
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    scores = scores_of(input)
    class_dim(scores, dim)
    if k != 1 or not largest:
        raise Unanswered("operators give the largest alone")
    only = _largest(input, scores, True)
    report.count_fused(f"topk of {name_of(scores)}")
    return torch.return_types.topk(only)


@answers(torch.amax, Tensor.amax)
def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    scores = scores_of(input)
    class_dim(scores, dim)
    if scores.function != "softmax" or (input.requires_grad and torch.is_grad_enabled()):
        raise Unanswered("operators give the largest probability, without its gradient")
    values, _ = _confidence(scores, input.dtype, keepdim)
    report.count_fused(f"amax of {name_of(scores)}")
    return values


def _softmax(
    function: Callable[..., Tensor],
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Probabilities or their logarithms; ``function`` is that of ``F``."""
    scores = scores_of(input)
    front = class_dim(scores, dim)
    if scores.function or dtype not in (None, input.dtype):
        raise Unanswered("of probabilities, or with a dtype")
    dtype = autocast_dtype(function, input, 1)
    like = torch.empty(input.shape, dtype=dtype, device="meta")
    named = replace(scores, function=function.__name__)
    return derived(input, lambda x: function(x, front, dtype=dtype), like, named)


for _function, _others in (
    (F.softmax, (torch.softmax, Tensor.softmax)),
    (F.log_softmax, (torch.log_softmax, Tensor.log_softmax)),
):
    answers(_function)(partial(_softmax, _function))
    # These have no ``_stacklevel``: the dtype is their third parameter.
    answers(*_others)(
        lambda input, dim=None, dtype=None, function=_function: _softmax(function, input, dim, dtype=dtype)
    )
