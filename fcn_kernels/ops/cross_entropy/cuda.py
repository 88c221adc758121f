"""Launches the CUDA kernels of cross_entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import CUDA, device_and_stream
from ...loss import LossCall

# The most blocks of a launch: each leaves a sum of losses and one of weights for a second, small kernel. A constant, so
# that results do not depend on the device.
MOST_BLOCKS = 4096


def cross_entropy(
    call: LossCall, loss: Tensor | None = None, grad: Tensor | None = None, scale: Tensor | None = None
) -> None:
    """Writes ``loss`` (of each pixel where the reduction is "none"), the gradient of its sum into ``grad``, and
    1 / sum of weights (0 where they are 0) into ``scale``: each unless it is None."""
    reduced = loss is not None and call.reduction != "none"
    sums = call.scores.new_empty((2, MOST_BLOCKS), dtype=torch.float32) if reduced else None
    CUDA.cross_entropy(
        call.scores,
        call.target,
        *call.weights(),
        grad,
        None if reduced else loss,
        loss if reduced else None,
        scale,
        sums,
        MOST_BLOCKS,
        *call.kernel_options,
        *device_and_stream(call.scores),
    )
