"""Launches the CUDA kernels of upsample_argmax."""

from __future__ import annotations

from torch import Tensor

from ...extension import CUDA, device_and_stream


def upsample_argmax(x: Tensor, grid: list[int], labels: Tensor, probability: Tensor | None = None) -> None:
    """Writes ``labels`` and, unless None, ``probability``."""
    CUDA.upsample_argmax(x, labels, probability, grid, *device_and_stream(x))
