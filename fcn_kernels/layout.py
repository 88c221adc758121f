"""Memory layouts of ``[N, C, H, W]`` tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def layout_of(x: Tensor) -> str:
    """``"channels_last"`` if ``x`` is stored pixel by pixel, else ``"contiguous"``."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return "channels_last" if channels_last else "contiguous"


def empty_map(like: Tensor, shape: tuple[int, int, int, int], layout: str, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised tensor on the device of ``like``, and of its dtype unless given."""
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format)
