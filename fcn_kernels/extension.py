"""The compiled modules. They take tensors as they are: see csrc/common/dlpack.h."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import backend

# The CPU and the CUDA module. Kernels are launched only after ``backend.choose`` has made sure that they are there.
C: Any = backend.CPU_EXTENSION
CUDA: Any = backend.CUDA_EXTENSION


def device_and_stream(x: Tensor) -> tuple[int, int]:
    """Where kernels on ``x`` are to run: its device, and PyTorch's current stream there; (0, 0) in the emulator."""
    if not x.is_cuda:
        return 0, 0
    return x.get_device(), torch.cuda.current_stream(x.device).cuda_stream
