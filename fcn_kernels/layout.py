"""Memory layouts of ``[N, C, H, W]`` tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def layout_of(x: Tensor) -> str:
    """``"channels_last"`` if ``x`` is stored pixel by pixel, else ``"contiguous"``."""
    if x.is_contiguous():
        return "contiguous"
    return "channels_last" if x.is_contiguous(memory_format=torch.channels_last) else "contiguous"


def suggested_format(x: Tensor) -> torch.memory_format:
    """The format that PyTorch's own kernels give their result: channels_last if the strides ascend in its order, gaps
    or not. (``torch._prims_common`` has the same, and imports for most of a second.)"""
    shape, strides = x.shape, x.stride()
    least = 0
    for dim in (1, 3, 2, 0):
        # Where only the batch is not 1 the strides do not tell.
        if strides[dim] < least or strides[1] == 0 or (dim == 0 and least == strides[1]):
            return torch.contiguous_format
        least = strides[dim] * max(shape[dim], 1)
    return torch.channels_last


def empty_map(like: Tensor, shape: tuple[int, int, int, int], layout: str, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised tensor on the device of ``like``, and of its dtype unless given."""
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device, memory_format=memory_format)


def gapless_rows(x: Tensor, channels_last: bool) -> Tensor:
    """``x`` itself if its rows (of pixels, or with ``channels_last`` of whole pixels) are stored without gaps."""
    if channels_last:
        # Strides along axes of size 1 say nothing, and a dense tensor may carry any there.
        gapless = x.stride(1) == 1 and (x.shape[3] == 1 or x.stride(3) == x.shape[1])
        return x if gapless else x.contiguous(memory_format=torch.channels_last)
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()
