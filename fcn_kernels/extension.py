"""How tensors are handed to the compiled modules: raw pointers, so that no build depends on a version of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import backend

# The CPU module. Kernels are launched only after ``backend.choose`` has made sure that it is there.
C: Any = backend.CPU_EXTENSION

_DTYPE_CODES = {
    torch.float32: 0,
    torch.float64: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.uint8: 4,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
}

Pointer = tuple[int, int, torch.Size, tuple[int, ...]]


def pointer(x: Tensor) -> Pointer:
    """What the compiled modules take for a tensor; valid while the caller holds ``x``."""
    return x.data_ptr(), _DTYPE_CODES[x.dtype], x.shape, x.stride()


def optional_pointer(x: Tensor | None) -> Pointer | None:
    return None if x is None else pointer(x)
