"""Launches the C++ kernel of cross_entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ...checks import raise_bad_label
from ...extension import C
from ...loss import LossCall


def cross_entropy(call: LossCall, loss: Tensor, grad: Tensor | None = None) -> None:
    """Writes ``loss`` (of each pixel where the reduction is "none") and, unless None, ``grad``."""
    pixels = call.reduction == "none"
    bad_pixel = C.cross_entropy(
        call.scores,
        call.target,
        *call.weights(),
        grad,
        loss if pixels else None,
        None if pixels else loss,
        *call.kernel_options,
        torch.get_num_threads(),
    )
    if bad_pixel >= 0:
        raise_bad_label("cross_entropy", call.target, bad_pixel, call.scores.shape[1], call.ignore_index)
