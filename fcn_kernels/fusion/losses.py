"""Losses of a lazy tensor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.upsample_cross_entropy import upsample_cross_entropy
from . import report
from .answers import answers, name_of, size_of
from .interpolate import autocast_dtype
from .lazy import Scores, Unanswered, scores_of


@answers(F.cross_entropy)
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
    if scores.function or size_average is not None or reduce is not None:
        raise Unanswered("of probabilities, or with size_average or reduce")
    dtype = autocast_dtype(_cross_entropy_of, input)
    loss = _loss(scores, dtype, input, target, weight, ignore_index, reduction, label_smoothing)
    report.count_fused(f"cross_entropy of {size_of(scores)}")
    return loss


@answers(F.nll_loss)
def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    scores = scores_of(input)
    if scores.function != "log_softmax" or size_average is not None or reduce is not None:
        raise Unanswered("not of log_softmax, or with size_average or reduce")
    loss = _loss(scores, autocast_dtype(_nll_loss_of, input), input, target, weight, ignore_index, reduction, 0.0)
    report.count_fused(f"nll_loss of {name_of(scores)}")
    return loss


def _loss(
    scores: Scores,
    dtype: torch.dtype,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    """``dtype`` is that of the loss."""
    if not scores.batched:
        raise Unanswered("of one image")
    if type(target) is not Tensor or target.dtype != torch.int64:
        raise Unanswered("the target is no tensor of int64 labels")
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
    return loss.to(dtype)


def _cross_entropy_of(x: Tensor) -> Tensor:
    return F.cross_entropy(x, torch.zeros(1, 1, 1, dtype=torch.int64, device=x.device))


def _nll_loss_of(x: Tensor) -> Tensor:
    return F.nll_loss(x, torch.zeros(1, 1, 1, dtype=torch.int64, device=x.device))


def _any_counts(target: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    counts = target != ignore_index
    if weight is not None:
        counts &= (weight != 0)[target.clamp(0, len(weight) - 1)]
    return counts.any()
