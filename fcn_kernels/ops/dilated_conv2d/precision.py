"""The precision of float32 convolutions on GPUs."""

from __future__ import annotations

import torch


def tf32_allowed() -> bool:
    """Whether convolutions of float32 may round to tf32, as PyTorch's own then do. PyTorch's default is yes."""
    # Unlike cudnn.allow_tf32, to be read whichever of PyTorch's two ways set it.
    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]
