"""The sums that meet in a coarse pixel, and the losses of programs, both in a fixed order."""

from __future__ import annotations

import triton
import triton.language as tl

from ....patches import corners_of, runs_at
from .units import PER_CALL


@triton.jit(do_not_specialize=PER_CALL)
def finish(
    sums, partials, grad, loss, scale, classes, h, w, cells, count, grad_n, grad_c, grad_h, grad_w,
    rows_size, rows_step, rows_rest, rows_denominator, rows_parts, rows_first, rows_runs,
    columns_size, columns_step, columns_rest, columns_denominator, columns_parts, columns_first, columns_runs,
    GRADIENT: tl.constexpr, MEAN: tl.constexpr, CLAMP: tl.constexpr, SPARSE_ROWS: tl.constexpr,
    SPARSE_COLUMNS: tl.constexpr, WIDE: tl.constexpr, CLASSES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """``loss`` and, unless None, ``scale`` from ``partials``, if given; ``grad`` of coarse pixels from their cells."""
    program = tl.program_id(0)
    if partials is not None:  # noqa: SIM102 - the compiler's question; the next is the GPU's
        if program == 0:
            _total(partials, loss, scale, count, MEAN)
    if GRADIENT:
        column_blocks = tl.cdiv(w, LANES)
        class_blocks = tl.cdiv(classes, CLASSES)
        j = program % column_blocks * LANES + tl.arange(0, LANES)
        program //= column_blocks
        c = program % class_blocks * CLASSES + tl.arange(0, CLASSES)
        program //= class_blocks
        i = program % h
        n = (program // h).to(tl.int64)
        top, bottom = runs_at(
            i, h, rows_step, rows_rest, rows_denominator, rows_parts, rows_first, rows_runs, CLAMP, SPARSE_ROWS, WIDE
        )
        left, right = runs_at(
            j, w, columns_step, columns_rest, columns_denominator, columns_parts, columns_first, columns_runs,
            CLAMP, SPARSE_COLUMNS, WIDE,
        )  # fmt: skip
        longest = tl.max(right - left, 0)
        inside = (c < classes)[:, None] & (j < w)[None, :]
        sums += (n * classes + c[:, None]) * 4 * cells
        total = tl.zeros((CLASSES, LANES), tl.float32)
        for y in range(top, bottom):
            above, below = corners_of(
                y, i, h, rows_step, rows_rest, rows_denominator, rows_parts, rows_first, CLAMP, SPARSE_ROWS, WIDE
            )
            for k in range(0, longest):
                x = left + k
                before, behind = corners_of(
                    x, j, w, columns_step, columns_rest, columns_denominator, columns_parts, columns_first,
                    CLAMP, SPARSE_COLUMNS, WIDE,
                )  # fmt: skip
                at = sums + (tl.cast(y, tl.int64) * columns_runs + x)[None, :]
                before = inside & (before & (x < right))[None, :]
                behind = inside & (behind & (x < right))[None, :]
                if above:
                    total += tl.load(at, before, other=0) + tl.load(at + cells, behind, other=0)
                if below:
                    total += tl.load(at + 2 * cells, before, other=0) + tl.load(at + 3 * cells, behind, other=0)
        j = j.to(tl.int64)
        grad += n * grad_n + tl.cast(i, tl.int64) * grad_h
        tl.store(grad + (c.to(tl.int64) * grad_c)[:, None] + (j * grad_w)[None, :], total, inside)


@triton.jit
def _total(partials, loss, scale, count, MEAN: tl.constexpr):
    """Partial sums in float64, a chunk of 1024 after the other."""
    losses = tl.zeros((1024,), tl.float64)
    weights = tl.zeros((1024,), tl.float64)
    for first in range(0, count, 1024):
        at = first + tl.arange(0, 1024)
        losses += tl.load(partials + 2 * at, at < count, other=0)
        weights += tl.load(partials + 2 * at + 1, at < count, other=0)
    total = tl.sum(losses, 0)
    factor = 1.0
    if MEAN:
        weight = tl.sum(weights, 0)
        factor = tl.where(weight != 0, 1 / tl.where(weight != 0, weight, 1.0), 0.0)
    tl.store(loss, total * factor)
    if scale is not None:
        tl.store(scale, factor)
