"""Where the CPU kernels are faster than the library's convolution: measured, in one place."""

from __future__ import annotations

import torch
from torch import Tensor

# Set by tests and benchmarks: "winograd" wherever it can run, "library" everywhere.
force: str | None = None


def winograd_may_pay(weight: Tensor) -> bool:
    """Whether there are maps on which the kernels are faster, as far as ``weight`` ``[O, I, k, l]`` tells."""
    if tuple(weight.shape[2:]) != (3, 3) or force == "library":
        return False
    if force == "winograd":
        return weight.dtype in (torch.float32, torch.float64)
    return weight.dtype == torch.float32 and min(weight.shape[:2]) >= 32


def winograd_pays(x: Tensor, weight: Tensor, out: Tensor, weight_gradient: bool = False) -> bool:
    """Whether to convolve ``x`` by ``weight`` to ``out``, or find the gradient of ``weight``, with the kernels."""
    return winograd_may_pay(weight) and (force is not None or out.shape[2] * out.shape[3] >= 256)
