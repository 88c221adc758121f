"""Triton kernel of upsample_region_sums: lanes are patches of pixels, classes are looped, nothing is kept per pixel.

It reads what the loss's ``pack`` writes, a row of pixels of each patch after the other, by the loss's exact path: one
exponential per pixel and class and pass. Tuples hold one tensor for each pixel of a row: they are registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...infinite import times
from ...patches import border_index, run_of
from ..upsample_cross_entropy.triton_kernels.corners import moments, store_corners
from ..upsample_cross_entropy.triton_kernels.exponentials import exact_sums, row_scores, score_at
from ..upsample_cross_entropy.triton_kernels.units import PER_CALL


@triton.jit
def _labels(sums, target, target_h, target_w, ignore_index, classes, extent, WIDE: tl.constexpr, COLUMNS: tl.constexpr):
    """From sums of exponentials of a row to 1 / these (0 where a pixel counts nowhere); labels (-1: none); and what is
    NaN where a label is out of range, and 0 elsewhere."""
    y, row_end, column_start, column_end = extent
    y_inside = (y >= 0) & (y < row_end)
    if WIDE:
        y = y.to(tl.int64)
    inverses = ()
    labels = ()
    poison = tl.zeros_like(sums[0])
    for column in tl.static_range(COLUMNS):
        x = column_start + column
        inside = y_inside & (x >= 0) & (x < column_end)
        if WIDE:
            x = x.to(tl.int64)
        label = tl.load(target + (y * target_h + x * target_w), inside, other=0)
        counts = inside & (label != ignore_index)
        known = (label >= 0) & (label < classes)
        c = tl.where(counts & known, label.to(tl.int32), -1)
        poison += tl.where(counts & ~known, float("nan"), 0.0)
        inverses = inverses + (tl.where(c >= 0, 1.0 / sums[column], 0.0),)
        labels = labels + (c,)
    return inverses, labels, poison


@triton.jit
def _probabilities(scores, pitch, position, inverses, peaks, COLUMNS: tl.constexpr):
    """Of one class, along a row."""
    score, slope = row_scores(scores, pitch, position)
    p = ()
    for k in tl.static_range(COLUMNS):
        p = p + (times(inverses[k], tl.exp2(score_at(score, slope, k) - peaks[k])),)
    return p


@triton.jit
def _weight(p, label, c, of_intersection, of_prediction, SQUARED: tl.constexpr):
    w = of_prediction
    if SQUARED:
        w = 2 * of_prediction * p
    return w + tl.where(label == c, of_intersection, 0.0)


@triton.jit
def _sums_of_row(
    scores, plane, pitch, position, classes, inverses, labels, poison, peaks, partials, again,
    SQUARED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Adds a row's sums to the program's ``partials`` [3][C], or writes them."""
    for c in range(0, classes):
        p = _probabilities(scores, pitch, position, inverses, peaks, COLUMNS)
        intersection = poison
        prediction = poison
        count = poison
        for k in tl.static_range(COLUMNS):
            prediction += p[k] * p[k] if SQUARED else p[k]
            intersection += tl.where(labels[k] == c, p[k], 0.0)
            count += tl.where(labels[k] == c, 1.0, 0.0)
        at = partials + c
        tl.store(at, tl.sum(intersection, 0) + tl.load(at, again, other=0))
        at += classes
        tl.store(at, tl.sum(prediction, 0) + tl.load(at, again, other=0))
        at += classes
        tl.store(at, tl.sum(count, 0) + tl.load(at, again, other=0))
        scores += plane


@triton.jit
def _gradient_of_row(
    scores, plane, pitch, position, classes, inverses, labels, peaks, of_intersection, of_prediction,
    sums, cells, keep, again, SQUARED: tl.constexpr, PIECES: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """With the weight w_c of a pixel's probability p_c: the gradient p_c * (w_c - sum over k of p_k * w_k)."""
    start = scores
    means = ()
    for k in tl.static_range(COLUMNS):
        means = means + (tl.zeros_like(inverses[0]),)
    for c in range(0, classes):
        p = _probabilities(scores, pitch, position, inverses, peaks, COLUMNS)
        own = tl.load(of_intersection + c)
        all_ = tl.load(of_prediction + c)
        added = ()
        for k in tl.static_range(COLUMNS):
            added = added + (tl.fma(p[k], _weight(p[k], labels[k], c, own, all_, SQUARED), means[k]),)
        means = added
        scores += plane
    scores = start
    for c in range(0, classes):
        p = _probabilities(scores, pitch, position, inverses, peaks, COLUMNS)
        own = tl.load(of_intersection + c)
        all_ = tl.load(of_prediction + c)
        slopes = ()
        for k in tl.static_range(COLUMNS):
            slopes = slopes + (p[k] * (_weight(p[k], labels[k], c, own, all_, SQUARED) - means[k]),)
        store_corners(moments(slopes, 1, COLUMNS), position, sums, cells, keep, again, PIECES)
        sums += 4 * tl.cast(cells, tl.int64)
        scores += plane


@triton.jit(do_not_specialize=[*PER_CALL, "images"])
def regions(
    packed, target, weights, sums, partials, images, classes, h, w, cells, blocks, plane, pitch,
    target_n, target_h, target_w, ignore_index,
    rows_size, rows_step, rows_rest, rows_denominator, rows_parts, rows_reach, rows_least, rows_first, rows_inverse,
    rows_slope, rows_runs, columns_size, columns_step, columns_rest, columns_denominator, columns_parts, columns_reach,
    columns_least, columns_first, columns_inverse, columns_slope, columns_runs,
    SQUARED: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, ROW_PIECES: tl.constexpr, SPARSE_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, COLUMN_PIECES: tl.constexpr, SPARSE_COLUMNS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program takes LANES patches of an image: ``partials`` [program][3][C], or from ``weights`` [2][N][C] ``sums``
    [N][C][4][cells]."""
    PIECES: tl.constexpr = ROW_PIECES * COLUMN_PIECES
    program = tl.program_id(0)
    n = (program // blocks).to(tl.int64)
    block = program % blocks
    if WIDE:
        block = block.to(tl.int64)
    lane = tl.arange(0, LANES)
    cell = block * (LANES // PIECES) + lane // PIECES
    piece = lane % PIECES
    exists = cell < cells
    row_cell, row_start, t_row, row_end = run_of(
        cell // columns_runs, piece // COLUMN_PIECES, rows_size, rows_step, rows_rest, rows_denominator, rows_parts,
        rows_reach, rows_least, rows_inverse, ROWS, ROW_PIECES, SPARSE_ROWS, WIDE,
    )  # fmt: skip
    column_cell, column_start, t_column, column_end = run_of(
        cell % columns_runs, piece % COLUMN_PIECES, columns_size, columns_step, columns_rest, columns_denominator,
        columns_parts, columns_reach, columns_least, columns_inverse, COLUMNS, COLUMN_PIECES, SPARSE_COLUMNS, WIDE,
    )  # fmt: skip
    row_end = tl.where(exists, row_end, 0)
    i = border_index(row_cell, rows_first, h)
    if WIDE:
        i = i.to(tl.int64)
    plane = tl.cast(plane, tl.int64)
    scores = packed + n * (classes + 2) * plane + i * pitch + border_index(column_cell, columns_first, w)
    target += n * target_n
    own = block * (LANES // PIECES) + tl.arange(0, LANES // PIECES)
    for row in range(0, ROWS):
        position = (tl.fma(rows_slope, row * 1.0, t_row), rows_slope, t_column, columns_slope)
        extent = (row_start + row, row_end, column_start, column_end)
        exp_sums, peaks = exact_sums(scores, plane, classes, pitch, position, LANES, COLUMNS)
        inverses, labels, poison = _labels(
            exp_sums, target, target_h, target_w, ignore_index, classes, extent, WIDE, COLUMNS
        )
        if weights is None:
            to = partials + tl.cast(program, tl.int64) * 3 * classes
            _sums_of_row(
                scores, plane, pitch, position, classes, inverses, labels, poison, peaks, to, row > 0, SQUARED, COLUMNS
            )
        else:
            of_intersection = weights + n * classes
            _gradient_of_row(
                scores, plane, pitch, position, classes, inverses, labels, peaks, of_intersection,
                of_intersection + tl.cast(images, tl.int64) * classes, sums + n * classes * 4 * cells + own, cells,
                own < cells, row > 0, SQUARED, PIECES, COLUMNS,
            )  # fmt: skip
        tl.debug_barrier()  # the next row adds to sums that other threads may have stored
