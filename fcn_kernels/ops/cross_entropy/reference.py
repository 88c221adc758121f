"""Softmax cross-entropy over classes in plain PyTorch: the specification."""

from __future__ import annotations

import torch
from torch import Tensor

from ...loss import LossCall


def cross_entropy(call: LossCall) -> Tensor:
    """Softmax cross-entropy over dim 1 with PyTorch's conventions, and a weight for each pixel."""
    _, target, weight, pixel_weight, ignore_index, reduction, label_smoothing, _ = call
    logits = call.scores.to(call.sum_dtype)
    classes = logits.shape[1]
    valid = target.long() != ignore_index
    known = (target.long() >= 0) & (target.long() < classes)
    label = torch.where(valid & known, target.long(), 0)
    class_weight = logits.new_ones(classes) if weight is None else weight.to(logits.dtype)
    pixel = valid.to(logits.dtype)
    if pixel_weight is not None:
        # A pixel that is ignored stays ignored whatever its weight is, NaN included.
        pixel = torch.where(valid, pixel_weight.to(logits.dtype), 0)

    # Weight 0 times anything is 0, of a pixel and of a class, also of scores that are not finite.
    log_p = torch.where((pixel != 0)[:, None], logits, 0).log_softmax(1)
    label_weight = class_weight[label]
    loss = -_times((1 - label_smoothing) * label_weight, log_p.gather(1, label[:, None])[:, 0])
    if label_smoothing > 0:
        loss = loss - _times(label_smoothing / classes * class_weight[:, None, None], log_p).sum(1)
    # A label out of range is never an index; it makes the loss NaN.
    loss = torch.where(known | ~valid, loss, torch.nan)
    loss = _times(pixel, loss)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    total = (pixel * label_weight).sum()
    return torch.where(total != 0, loss.sum() / torch.where(total != 0, total, 1), 0 * loss.sum())


def _times(weight: Tensor, x: Tensor) -> Tensor:
    return torch.where(weight != 0, weight * x, 0)
