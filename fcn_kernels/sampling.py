"""What the Triton kernels that sample by a ``BilinearGrid`` share, on the host and on the device.

Coordinates are exact: output pixel ``y`` samples ``u / denominator`` with the integer ``u = step * y + origin``.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from .grid import BORDERS

# Tiles reach beyond the last pixel by less than this.
_MARGIN = 4096


def axis_arguments(prefix: str, ints: list[int], axis: int) -> dict[str, Any]:
    """The arguments ``<prefix>_step``, ``_origin``, ``_denominator`` and ``_inverse`` of a kernel, from ``as_ints``."""
    step, origin, denominator = ints[2 + 3 * axis : 5 + 3 * axis]
    names = (f"{prefix}_step", f"{prefix}_origin", f"{prefix}_denominator", f"{prefix}_inverse")
    return dict(zip(names, (step, origin, denominator, 1 / denominator), strict=True))


def clamps(ints: list[int]) -> bool:
    return BORDERS[ints[8]] == "clamp"


def needs_int64(ints: list[int], input_size: tuple[int, int]) -> bool:
    """Whether a coordinate of this grid, times its denominator, takes more than 32 bits."""
    for axis in range(2):
        step, origin, denominator = ints[2 + 3 * axis : 5 + 3 * axis]
        outputs = abs(origin) + step * (ints[axis] + _MARGIN)
        if outputs + denominator * (input_size[axis] + _MARGIN) >= 2**31:
            return True
    return False


@triton.jit
def coordinate(index, step, origin, denominator, size, CLAMP: tl.constexpr, INT64: tl.constexpr):
    """``u`` of output pixels ``index``, within an input of ``size`` if CLAMP."""
    if INT64:
        index = tl.cast(index, tl.int64)
    u = index * step + origin
    if CLAMP:
        u = tl.minimum(tl.maximum(u, 0), (size - 1) * denominator)
    return u


@triton.jit
def floor(u, denominator):
    """The input pixel at or before ``u``; -1 for all that lie before the input."""
    return tl.maximum(u + denominator, 0) // denominator - 1


@triton.jit
def weight(u, i, denominator, inverse):
    """``max(0, 1 - |u / denominator - i|)``, in float32; the difference is exact."""
    return tl.maximum(denominator - tl.abs(u - i * denominator), 0).to(tl.float32) * inverse
