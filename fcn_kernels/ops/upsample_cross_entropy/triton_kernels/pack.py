"""Scores relative to the largest class of their coarse pixel, to base 2, with a border."""

from __future__ import annotations

import triton
import triton.language as tl

from ....infinite import times
from ....patches import BORDER
from .units import LOG2E, PER_CALL


@triton.jit(do_not_specialize=PER_CALL)
def pack(
    x, weight, packed, classes, h, w, blocks, plane, pitch, x_n, x_c, x_h, x_w,
    CLAMP: tl.constexpr, SMOOTH: tl.constexpr, WIDE: tl.constexpr, CLASSES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """``packed`` [N][C + 2][plane]: relative scores with a border, then the least of them, then their weighted sum."""
    program = tl.program_id(0)
    n = (program // blocks).to(tl.int64)
    block = program % blocks
    if WIDE:
        block = block.to(tl.int64)
    at = block * LANES + tl.arange(0, LANES)
    i = at // pitch - BORDER
    j = at % pitch - BORDER
    inside = at < plane
    if CLAMP:
        i = tl.minimum(tl.maximum(i, 0), h - 1)
        j = tl.minimum(tl.maximum(j, 0), w - 1)
        exists = inside
    else:
        exists = inside & (i >= 0) & (i < h) & (j >= 0) & (j < w)
    source = x + n * x_n + (i * x_h + j * x_w)[None, :]
    packed += n * (classes + 2) * plane
    peak = tl.full((LANES,), float("-inf"), tl.float32)
    for first in range(0, classes, CLASSES):
        c = first + tl.arange(0, CLASSES)[:, None].to(tl.int64)
        scores = tl.load(source + c * x_c, (c < classes) & exists[None, :], other=float("-inf")).to(tl.float32)
        peak = tl.maximum(peak, tl.max(scores, 0))
    peak = tl.where(peak == float("-inf"), 0.0, peak)  # with every class excluded, that less itself would be no number
    least = tl.zeros((LANES,), tl.float32)
    smooth = tl.zeros((LANES,), tl.float32)
    for first in range(0, classes, CLASSES):
        c = first + tl.arange(0, CLASSES)[:, None].to(tl.int64)
        counts = (c < classes) & exists[None, :]
        scores = tl.load(source + c * x_c, counts, other=0).to(tl.float32)
        scores = tl.where(counts, (scores - peak[None, :]) * LOG2E, 0.0)
        tl.store(packed + c * plane + at[None, :], scores, (c < classes) & inside[None, :])
        # The second term is NaN where a score is not finite, and 0 elsewhere.
        least = tl.minimum(least, tl.min(scores, 0)) + tl.sum(scores - scores, 0)
        if SMOOTH:
            if weight is not None:
                scores = times(tl.load(weight + c, c < classes, other=0), scores)
            smooth += tl.sum(scores, 0)
    packed += tl.cast(classes, tl.int64) * plane
    tl.store(packed + at, least, inside)
    if SMOOTH:
        tl.store(packed + plane + at, smooth, inside)
