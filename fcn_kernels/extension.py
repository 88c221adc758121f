"""How tensors are handed to the compiled modules: raw pointers, so that no build depends on a version of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import backend

# The CPU and the CUDA module. Kernels are launched only after ``backend.choose`` has made sure that they are there.
C: Any = backend.CPU_EXTENSION
CUDA: Any = backend.CUDA_EXTENSION

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


def device_and_stream(x: Tensor) -> tuple[int, int]:
    """Where kernels on ``x`` are to run: its device, and PyTorch's current stream there; (0, 0) in the emulator."""
    if x.device.type != "cuda":
        return 0, 0
    return x.get_device(), torch.cuda.current_stream(x.device).cuda_stream
