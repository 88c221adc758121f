"""Interpolation in Triton kernels between scores that may be infinite (a class may be excluded by -inf).

``along(a, t, difference(a, b))`` for t in [0, 1): what has weight 0 counts for nothing, whatever it is; an infinite
score with a weight is the result; NaN, or infinities of both signs, make NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def difference(a, b):
    """``b - a``; 0 where ``a`` is infinite and stays so on the way to ``b``."""
    return tl.where((a - a != 0) & ((b - b == 0) | (a == b)), 0.0, b - a)


@triton.jit
def along(a, t, d):
    return tl.where(t != 0, tl.fma(t, d, a), a)


@triton.jit
def times(weight, score):
    """A score that counts with a weight, for nothing if that is 0."""
    return tl.where(weight != 0, weight * score, 0.0)
