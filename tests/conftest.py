"""Where there is no GPU, its kernels run all the same: CUDA's in the emulator, Triton's in its interpreter."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    # Read when fcn_kernels and triton are imported, so set before any test module is.
    os.environ.setdefault("FCN_KERNELS_EMULATE", "1")
    os.environ.setdefault("TRITON_INTERPRET", "1")


# PyTorch's testing internals, once imported, forbid flags that Lightning sets, to every later test of the process.
torch.backends.disable_global_flags = lambda: None
