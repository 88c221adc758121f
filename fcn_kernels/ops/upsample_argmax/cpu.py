"""Launches the C++ kernel of upsample_argmax."""

from __future__ import annotations

import torch
from torch import Tensor

from ...extension import C


def upsample_argmax(x: Tensor, grid: list[int], labels: Tensor, probability: Tensor | None = None) -> None:
    """Writes ``labels`` and, unless None, ``probability``."""
    C.upsample_argmax(x, labels, probability, grid, torch.get_num_threads())
