"""Losses of patches, and for each class and cell the gradient's sums at the four corners."""

from __future__ import annotations

import triton
import triton.language as tl

from ....infinite import times
from ....patches import border_index, run_of
from .corners import store_corners
from .exponentials import exact_moments, exact_sums, geometric_moments, geometric_sums
from .labels import label_moments, normalise, present, weighted_scores
from .units import LN2, PER_CALL

# Where all scores of a program's patches lie above this (62 nats below the largest class), the fast path's
# exponentials, their products with reciprocal sums and the powers of their ratios stay inside float32's range.
LOWEST = tl.constexpr(-62 * 1.4426950408889634)


@triton.jit
def _rows(
    packed, at, pitch, plane, classes, target, target_h, target_w, weight, weight_total, pixel_weight, pixel_weight_h,
    pixel_weight_w, pixel_loss, ignore_index, hard, smoothing, extent, position, sums, cells, keep, again,
    EXACT: tl.constexpr, GRADIENT: tl.constexpr, SMOOTH: tl.constexpr, PIXELS: tl.constexpr, WIDE: tl.constexpr,
    PIECES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Loss and gradient of ROWS rows of each lane's patch; of one if EXACT, for scores of any range."""
    plane = tl.cast(plane, tl.int64)
    scores = packed + at
    if EXACT:
        exp_sums, peaks = exact_sums(scores, plane, classes, pitch, position, LANES, COLUMNS)
    else:
        exp_sums = geometric_sums(scores, plane, classes, pitch, position, LANES, ROWS, COLUMNS)
        peaks = None
    loss, weight_sum, factors, labels, weights = normalise(
        exp_sums, peaks, packed, at, pitch, plane, classes, target, target_h, target_w, weight, weight_total,
        pixel_weight, pixel_weight_h, pixel_weight_w, pixel_loss, ignore_index, hard, smoothing, extent, position,
        SMOOTH, PIXELS, WIDE, ROWS, COLUMNS,
    )  # fmt: skip
    if not PIXELS:
        WEIGHED: tl.constexpr = pixel_weight is not None
        met = present(labels, ROWS * COLUMNS)
        if SMOOTH:
            smooth = label_moments(labels, weights, 0, True, WEIGHED, ROWS, COLUMNS)
            smooth_scores = packed + (classes + 1) * plane + at
            loss -= smoothing * weighted_scores(smooth, smooth_scores, pitch, position)
        for c in range(0, classes):
            class_weight = 1.0
            if weight is not None:
                class_weight = tl.load(weight + c)
            if GRADIENT:
                if EXACT:
                    total, column, row, both = exact_moments(scores, pitch, position, factors, peaks, COLUMNS)
                else:
                    total, column, row, both = geometric_moments(scores, pitch, position, factors, ROWS, COLUMNS)
            if (met >> (c & 31)) & 1:
                scale = hard * class_weight
                of_class = label_moments(labels, weights, c, False, WEIGHED, ROWS, COLUMNS)
                loss -= times(scale, weighted_scores(of_class, scores, pitch, position))
                if GRADIENT:
                    total -= scale * of_class[0]
                    column -= scale * of_class[1]
                    row -= scale * of_class[2]
                    both -= scale * of_class[3]
            if GRADIENT:
                if SMOOTH:
                    scale = smoothing * class_weight
                    total -= scale * smooth[0]
                    column -= scale * smooth[1]
                    row -= scale * smooth[2]
                    both -= scale * smooth[3]
                store_corners((total, column, row, both), position, sums, cells, keep, again, PIECES)
                sums += 4 * tl.cast(cells, tl.int64)
            scores += plane
    return loss, weight_sum


@triton.jit(do_not_specialize=PER_CALL)
def patches(
    packed, target, weight, weight_total, pixel_weight, sums, partials, pixel_loss,
    classes, h, w, cells, blocks, plane, pitch,
    target_n, target_h, target_w, pixel_weight_n, pixel_weight_h, pixel_weight_w, ignore_index, hard, smoothing,
    rows_size, rows_step, rows_rest, rows_denominator, rows_parts, rows_reach, rows_least, rows_first, rows_inverse,
    rows_slope, rows_runs, columns_size, columns_step, columns_rest, columns_denominator, columns_parts, columns_reach,
    columns_least, columns_first, columns_inverse, columns_slope, columns_runs,
    GEOMETRIC: tl.constexpr, GRADIENT: tl.constexpr, PIXELS: tl.constexpr, SMOOTH: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, ROW_PIECES: tl.constexpr, SPARSE_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, COLUMN_PIECES: tl.constexpr, SPARSE_COLUMNS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program takes LANES patches of an image: ``sums`` [N][C][4][cells], ``partials`` [program][loss, weight]."""
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
    extent = (row_start, row_end, column_start, column_end, columns_size)
    position = (t_row, rows_slope, t_column, columns_slope)
    i = border_index(row_cell, rows_first, h)
    if WIDE:
        i = i.to(tl.int64)
    at = i * pitch + border_index(column_cell, columns_first, w)
    packed += n * (classes + 2) * plane
    target += n * target_n
    if pixel_weight is not None:
        pixel_weight += n * pixel_weight_n
    if PIXELS:
        pixel_loss += n * rows_size * columns_size
    total = 0.0
    if SMOOTH:
        total = tl.load(weight_total) if weight is not None else classes * 1.0
    own = block * (LANES // PIECES) + tl.arange(0, LANES // PIECES)
    keep = own < cells
    if GRADIENT:
        sums += n * classes * 4 * cells + own
    fits = False
    if GEOMETRIC:
        least = packed + tl.cast(classes, tl.int64) * plane + at
        above = (tl.load(least) > LOWEST) & (tl.load(least + 1) > LOWEST)
        above &= (tl.load(least + pitch) > LOWEST) & (tl.load(least + pitch + 1) > LOWEST)
        fits = tl.min((above | (row_end <= 0)).to(tl.int32), 0) > 0
    if fits:
        loss, weight_sum = _rows(
            packed, at, pitch, plane, classes, target, target_h, target_w, weight, total, pixel_weight, pixel_weight_h,
            pixel_weight_w, pixel_loss, ignore_index, hard, smoothing, extent, position, sums, cells, keep, False,
            False, GRADIENT, SMOOTH, PIXELS, WIDE, PIECES, ROWS, COLUMNS, LANES,
        )  # fmt: skip
    else:
        loss = tl.zeros_like(t_row)
        weight_sum = tl.zeros_like(t_row)
        for row in range(0, ROWS):
            extent = (row_start + row, row_end, column_start, column_end, columns_size)
            position = (tl.fma(rows_slope, row * 1.0, t_row), rows_slope, t_column, columns_slope)
            row_loss, row_weight_sum = _rows(
                packed, at, pitch, plane, classes, target, target_h, target_w, weight, total, pixel_weight,
                pixel_weight_h, pixel_weight_w, pixel_loss, ignore_index, hard, smoothing, extent, position,
                sums, cells, keep, row > 0,
                True, GRADIENT, SMOOTH, PIXELS, WIDE, PIECES, 1, COLUMNS, LANES,
            )  # fmt: skip
            loss += row_loss
            weight_sum += row_weight_sum
            tl.debug_barrier()  # the next row adds to sums that other threads may have stored
    if not PIXELS:
        tl.store(partials + 2 * program, tl.sum(loss, 0) * LN2)
        tl.store(partials + 2 * program + 1, tl.sum(weight_sum, 0))
