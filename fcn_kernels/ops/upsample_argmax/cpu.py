"""Launches the C++ kernel of upsample_argmax."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import C, optional_pointer, pointer


def upsample_argmax(x: Tensor, grid: list[int], labels: Tensor, probability: Tensor | None = None) -> None:
    """Writes ``labels`` and, unless None, ``probability``."""
    C.upsample_argmax(pointer(x), pointer(labels), optional_pointer(probability), grid, torch.get_num_threads())
