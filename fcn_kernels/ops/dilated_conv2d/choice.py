"""Where the CPU kernels are faster than the library's convolution: measured, in one place."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Set by tests and benchmarks: "kernels" wherever they can run, "library" everywhere.
force: str | None = None

FEW = 4
"""Input channels up to which a convolution is one matrix product."""
FEW_TAPS = 160
"""Numbers a filter may then have."""
MOST_PIXELS = 1024
"""Of all outputs of a convolution by large filters that is one matrix product of the library."""


def may_pay(weight: Tensor) -> bool:
    """Whether there are maps on which a kernel is faster, as far as the filters ``[O, I, k, l]`` tell."""
    if force is not None:
        return force == "kernels" and weight.dtype in (torch.float32, torch.float64)
    return weight.dtype == torch.float32 and (_winograd(weight) or _few(weight))


def few_inputs_pay(weight: Tensor) -> bool:
    """Whether the kernel for few input channels is faster."""
    return force != "library" and _few(weight)


def product_pays(x: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]) -> bool:
    """Whether one matrix product of the library is faster than its convolution: large filters, few pixels."""
    rows, columns = weight.shape[2:]
    if force == "library" or weight.dtype != torch.float32 or rows * columns < 25 or weight.numel() < 2**22:
        return False
    if torch.compiler.is_compiling():  # sizes may be unknown
        return False
    sizes = (x.shape[2 + a] + 2 * padding[a] - dilation[a] * (weight.shape[2 + a] - 1) for a in (0, 1))
    return 0 < x.shape[0] * math.prod(sizes) <= MOST_PIXELS


def winograd_pays(
    weight: Tensor, out: Tensor, dilation: Sequence[int], transform: bool, least_use: float = 0.6
) -> bool:
    """Whether Winograd's algorithm is faster for the output, or for the gradient of the output, ``out``.

    ``transform``: whether the filters have to be transformed for it, which takes as long as some pixels.
    ``least_use``: the part of the tiles' outputs that are pixels; in small phases (large dilations) it is little.
    """
    if force is not None:
        return force == "kernels" and tuple(weight.shape[2:]) == (3, 3)
    pixels = out.shape[0] * out.shape[2] * out.shape[3]
    used = _use(out.shape[2], dilation[0]) * _use(out.shape[3], dilation[1])
    return _winograd(weight) and pixels >= (1024 if transform else 196) and used >= least_use


def _use(size: int, dilation: int) -> float:
    """The part of an axis of tiles of 4, cut from ``dilation`` phases, that is pixels."""
    larger = size % dilation  # phases, that are one pixel longer
    tiles = larger * -(-(size // dilation + 1) // 4) + (dilation - larger) * -(-(size // dilation) // 4)
    return size / (4 * tiles)


def _winograd(weight: Tensor) -> bool:
    return tuple(weight.shape[2:]) == (3, 3) and min(weight.shape[:2]) >= 32


def _few(weight: Tensor) -> bool:
    return weight.shape[1] <= FEW and weight[0].numel() <= FEW_TAPS and (force == "kernels" or weight.shape[0] >= 48)
