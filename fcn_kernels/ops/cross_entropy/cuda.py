"""Launches the CUDA kernels of cross_entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import CUDA, device_and_stream

# The most blocks of a launch: each leaves a sum of losses and one of weights for a second, small kernel. A constant, so
# that results do not depend on the device.
MOST_BLOCKS = 4096


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    loss: Tensor | None = None,
    grad: Tensor | None = None,
    scale: Tensor | None = None,
) -> None:
    """Writes ``loss`` (of each pixel where ``reduction`` is "none"), the gradient of its sum into ``grad``, and
    1 / sum of weights (0 where they are 0) into ``scale``: each unless it is None."""
    weight = None if weight is None else weight.detach().float().contiguous()
    pixel_weight = None if pixel_weight is None else pixel_weight.detach().float()
    reduced = loss is not None and reduction != "none"
    sums = logits.new_empty((2, MOST_BLOCKS), dtype=torch.float32) if reduced else None
    CUDA.cross_entropy(
        logits,
        target,
        weight,
        pixel_weight,
        grad,
        None if reduced else loss,
        loss if reduced else None,
        scale,
        sums,
        MOST_BLOCKS,
        ignore_index,
        reduction == "mean",
        label_smoothing,
        *device_and_stream(logits),
    )
