"""Triton kernels of upsample_cross_entropy: lanes are patches of pixels, classes are looped, nothing is kept per pixel.

``pack`` takes scores relative to the largest class of their coarse pixel. ``patches`` makes losses, and for each
class and cell the gradient's sums at the four corners. ``finish`` adds the sums that meet in a coarse pixel, and the
losses of programs, both in a fixed order. Scores and their exponentials are to base 2 throughout.

Tuples hold one tensor for each pixel of a patch, row by row: they are registers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...patches import BORDER, border_index, corners_of, run_of, runs_at

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# Where all scores of a program's patches lie above this (62 nats below the largest class), the fast path's
# exponentials, their products with reciprocal sums and the powers of their ratios stay inside float32's range.
LOWEST = tl.constexpr(-62 * 1.4426950408889634)

_PER_CALL = [
    "classes", "h", "w", "cells", "blocks", "plane", "pitch", "rows_size", "rows_step", "rows_rest", "rows_denominator",
    "rows_reach", "rows_least", "rows_first", "rows_runs", "columns_size", "columns_step", "columns_rest",
    "columns_denominator", "columns_reach", "columns_least", "columns_first", "columns_runs", "count",
]  # fmt: skip


@triton.jit(do_not_specialize=_PER_CALL)
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
                scores *= tl.load(weight + c, c < classes, other=0)
            smooth += tl.sum(scores, 0)
    packed += tl.cast(classes, tl.int64) * plane
    tl.store(packed + at, least, inside)
    if SMOOTH:
        tl.store(packed + plane + at, smooth, inside)


@triton.jit
def _corners(at, pitch):
    """At the upper left corner of each lane's cell: the score and its slopes along columns, rows and both."""
    corner = tl.load(at)
    right = tl.load(at + 1) - corner
    below = tl.load(at + pitch)
    both = (tl.load(at + pitch + 1) - below) - right
    return corner, right, below - corner, both


@triton.jit
def _score(corners, u, v):
    """At position ``u`` between the rows of corners and ``v`` between the columns."""
    corner, right, below, both = corners
    return tl.fma(u, tl.fma(v, both, below), tl.fma(v, right, corner))


@triton.jit
def _moments(values, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums over a patch's pixels of ``values``, and of them times the pixel's column, its row, and both."""
    total = values[0] * 0
    columns, rows, both = total, total, total
    for row in tl.static_range(ROWS):
        s = values[row * COLUMNS]
        s_column = s * 0
        for column in tl.static_range(1, COLUMNS):
            s += values[row * COLUMNS + column]
            s_column = tl.fma(values[row * COLUMNS + column], column + 0.0, s_column)
        total += s
        columns += s_column
        rows = tl.fma(s, row + 0.0, rows)
        both = tl.fma(s_column, row + 0.0, both)
    return total, columns, rows, both


@triton.jit
def _positions(moments, position):
    """From moments in pixels, counted from a patch's first, to moments in the position between the corners."""
    total, column, row, both = moments
    t_row, row_slope, t_column, column_slope = position
    both = t_row * (t_column * total + column_slope * column) + row_slope * (t_column * row + column_slope * both)
    return total, t_column * total + column_slope * column, t_row * total + row_slope * row, both


@triton.jit
def _normalise(
    sums, peaks, packed, at, pitch, plane, classes, target, target_h, target_w, weight, weight_total,
    pixel_weight, pixel_weight_h, pixel_weight_w, pixel_loss, ignore_index, hard, smoothing, extent, position,
    SMOOTH: tl.constexpr, PIXELS: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """From sums of exponentials, relative to ``peaks``, to log-sum-exps, and to what makes gradients of exponentials.

    Returns the weighted sum of the first, the sum of weights, and for each pixel: weight / sum of exponentials, the
    label (-1: none), and the pixel's weight where there are such.
    """
    row_start, row_end, column_start, column_end, width = extent
    t_row, row_slope, t_column, column_slope = position
    loss = tl.zeros_like(t_row)
    weight_sum = tl.zeros_like(t_row)
    factors = ()
    labels = ()
    weights = ()
    for row in tl.static_range(ROWS):
        y = row_start + row
        y_inside = (y >= 0) & (y < row_end)
        if WIDE:
            y = y.to(tl.int64)
        for column in tl.static_range(COLUMNS):
            x = column_start + column
            inside = y_inside & (x >= 0) & (x < column_end)
            if WIDE:
                x = x.to(tl.int64)
            label = tl.load(target + (y * target_h + x * target_w), inside, other=0)
            counts = inside & (label != ignore_index)
            known = (label >= 0) & (label < classes)
            w = tl.where(counts, 1.0, 0.0)
            if pixel_weight is not None:
                w = tl.load(pixel_weight + (y * pixel_weight_h + x * pixel_weight_w), counts, other=0).to(tl.float32)
                counts &= w != 0
                weights = weights + (w,)
            c = tl.where(counts & known, label.to(tl.int32), -1)
            label_weight = w
            if weight is not None:
                label_weight = w * tl.load(weight + c, c >= 0, other=0)
            weight_sum += label_weight
            sum_weight = hard * label_weight
            if SMOOTH:
                sum_weight += smoothing * weight_total * w
            s = sums[row * COLUMNS + column]
            log_sum = tl.log2(s)
            if peaks is not None:
                log_sum += peaks[row * COLUMNS + column]
            pixel = tl.where(counts, tl.where(known, sum_weight * log_sum, float("nan")), 0.0)
            if PIXELS:
                u = tl.fma(row_slope, row * 1.0, t_row)
                v = tl.fma(column_slope, column * 1.0, t_column)
                scores = packed + tl.maximum(c, 0).to(tl.int64) * plane + at
                pixel -= tl.where(c >= 0, hard * label_weight * _score(_corners(scores, pitch), u, v), 0.0)
                if SMOOTH:
                    scores = packed + tl.cast(classes + 1, tl.int64) * plane + at
                    pixel -= tl.where(c >= 0, smoothing * w * _score(_corners(scores, pitch), u, v), 0.0)
                tl.store(pixel_loss + (y * width + x), pixel * LN2, inside)
            loss += pixel
            factors = factors + (tl.where(c >= 0, sum_weight / s, 0.0),)
            labels = labels + (c,)
    return loss, weight_sum, factors, labels, weights


@triton.jit
def _present(labels, COUNT: tl.constexpr):
    """Which labels some lane has, as bits; label 32 has that of label 0, and so on."""
    bits = tl.zeros_like(labels[0])
    for i in tl.static_range(COUNT):
        bits |= tl.where(labels[i] < 0, 0, 1 << (labels[i] & 31))
    return tl.reduce_or(bits, 0)


@triton.jit
def _label_moments(
    labels, weights, c, ANY: tl.constexpr, WEIGHED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Moments of the weights of the pixels with label ``c``, or with any."""
    chosen = ()
    for i in tl.static_range(ROWS * COLUMNS):
        mine = labels[i] >= 0 if ANY else labels[i] == c
        chosen = chosen + (tl.where(mine, weights[i] if WEIGHED else 1.0, 0.0),)
    return _moments(chosen, ROWS, COLUMNS)


@triton.jit
def _weighted_scores(moments, scores, pitch, position):
    """The sum of a class's scores over a patch's pixels, weighed as the moments' pixels are."""
    total, columns, rows, both = _positions(moments, position)
    corner, right, below, slope = _corners(scores, pitch)
    return total * corner + columns * right + rows * below + both * slope


@triton.jit
def _store_corners(moments, position, sums, cells, keep, again, PIECES: tl.constexpr):
    """What each corner gets of a class's gradient, the pieces of a run added; on top of what is there if ``again``."""
    total, column, row, both = _positions(moments, position)
    corners = ((total - row) - (column - both), column - both, row - both, both)
    for i in tl.static_range(4):
        value = tl.sum(tl.reshape(corners[i], (total.shape[0] // PIECES, PIECES)), 1)
        value += tl.load(sums + i * cells, keep & again, other=0)
        tl.store(sums + i * cells, value, keep)


@triton.jit
def _exponentials(scores, pitch, position):
    """Of one class: at a patch's first pixel, the ratio from column to column, and both ratios from row to row."""
    t_row, row_slope, t_column, column_slope = position
    corner, right, below, both = _corners(scores, pitch)
    corner = tl.fma(t_column, right, corner)
    below = tl.fma(t_column, both, below)
    e = tl.exp2(tl.fma(t_row, below, corner))
    ratio = tl.exp2(tl.fma(t_row, both, right) * column_slope)
    return e, ratio, tl.exp2(below * row_slope), tl.exp2(both * (row_slope * column_slope))


@triton.jit
def _geometric_sums(
    scores, plane, classes, pitch, position, LANES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Sums of exponentials: along a row of pixels a class's exponential is e * ratio^k, so four serve a patch."""
    sums = ()
    for i in tl.static_range(ROWS * COLUMNS):
        sums = sums + (tl.zeros((LANES,), tl.float32),)
    for c in range(0, classes):
        e, ratio, e_ratio, ratio_ratio = _exponentials(scores, pitch, position)
        added = ()
        for row in tl.static_range(ROWS):
            power = e
            for column in tl.static_range(COLUMNS):
                added = added + (sums[row * COLUMNS + column] + power,)
                power *= ratio
            e *= e_ratio
            ratio *= ratio_ratio
        sums = added
        scores += plane
    return sums


@triton.jit
def _geometric_moments(scores, pitch, position, factors, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Moments of a class's weighted probabilities: a row's are polynomials in the ratio, by Horner's rule."""
    e, ratio, e_ratio, ratio_ratio = _exponentials(scores, pitch, position)
    total = e * 0
    columns, rows, both = total, total, total
    for row in tl.static_range(ROWS):
        p = factors[row * COLUMNS + COLUMNS - 1]
        slope = p * 0
        for k in tl.static_range(1, COLUMNS):
            slope = tl.fma(slope, ratio, p)
            p = tl.fma(p, ratio, factors[row * COLUMNS + COLUMNS - 1 - k])
        p *= e
        slope *= e * ratio
        total += p
        columns += slope
        rows = tl.fma(p, row * 1.0, rows)
        both = tl.fma(slope, row * 1.0, both)
        e *= e_ratio
        ratio *= ratio_ratio
    return total, columns, rows, both


@triton.jit
def _row_scores(scores, pitch, position):
    """Of one class along a row of pixels: the first pixel's score, and the slope from pixel to pixel."""
    t_row, t_column, column_slope = position[0], position[2], position[3]
    corner, right, below, both = _corners(scores, pitch)
    right = tl.fma(t_row, both, right)
    return tl.fma(t_column, right, tl.fma(t_row, below, corner)), right * column_slope


@triton.jit
def _exact_sums(scores, plane, classes, pitch, position, LANES: tl.constexpr, COLUMNS: tl.constexpr):
    """For scores of any range, one row: sums of exponentials relative to the pixel's largest, and the largest."""
    start = scores
    peaks = ()
    sums = ()
    for k in tl.static_range(COLUMNS):
        peaks = peaks + (tl.full((LANES,), float("-inf"), tl.float32),)
        sums = sums + (tl.zeros((LANES,), tl.float32),)
    for c in range(0, classes):
        score, slope = _row_scores(scores, pitch, position)
        higher = ()
        for k in tl.static_range(COLUMNS):
            higher = higher + (tl.maximum(peaks[k], tl.fma(slope, k * 1.0, score)),)
        peaks = higher
        scores += plane
    scores = start
    for c in range(0, classes):
        score, slope = _row_scores(scores, pitch, position)
        added = ()
        for k in tl.static_range(COLUMNS):
            added = added + (sums[k] + tl.exp2(tl.fma(slope, k * 1.0, score) - peaks[k]),)
        sums = added
        scores += plane
    return sums, peaks


@triton.jit
def _exact_moments(scores, pitch, position, factors, peaks, COLUMNS: tl.constexpr):
    score, slope = _row_scores(scores, pitch, position)
    p = ()
    for k in tl.static_range(COLUMNS):
        p = p + (factors[k] * tl.exp2(tl.fma(slope, k * 1.0, score) - peaks[k]),)
    return _moments(p, 1, COLUMNS)


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
        exp_sums, peaks = _exact_sums(scores, plane, classes, pitch, position, LANES, COLUMNS)
    else:
        exp_sums = _geometric_sums(scores, plane, classes, pitch, position, LANES, ROWS, COLUMNS)
        peaks = None
    loss, weight_sum, factors, labels, weights = _normalise(
        exp_sums, peaks, packed, at, pitch, plane, classes, target, target_h, target_w, weight, weight_total,
        pixel_weight, pixel_weight_h, pixel_weight_w, pixel_loss, ignore_index, hard, smoothing, extent, position,
        SMOOTH, PIXELS, WIDE, ROWS, COLUMNS,
    )  # fmt: skip
    if not PIXELS:
        WEIGHED: tl.constexpr = pixel_weight is not None
        present = _present(labels, ROWS * COLUMNS)
        if SMOOTH:
            smooth = _label_moments(labels, weights, 0, True, WEIGHED, ROWS, COLUMNS)
            smooth_scores = packed + (classes + 1) * plane + at
            loss -= smoothing * _weighted_scores(smooth, smooth_scores, pitch, position)
        for c in range(0, classes):
            class_weight = 1.0
            if weight is not None:
                class_weight = tl.load(weight + c)
            if GRADIENT:
                if EXACT:
                    total, column, row, both = _exact_moments(scores, pitch, position, factors, peaks, COLUMNS)
                else:
                    total, column, row, both = _geometric_moments(scores, pitch, position, factors, ROWS, COLUMNS)
            if (present >> (c & 31)) & 1:
                scale = hard * class_weight
                of_class = _label_moments(labels, weights, c, False, WEIGHED, ROWS, COLUMNS)
                loss -= scale * _weighted_scores(of_class, scores, pitch, position)
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
                _store_corners((total, column, row, both), position, sums, cells, keep, again, PIECES)
                sums += 4 * tl.cast(cells, tl.int64)
            scores += plane
    return loss, weight_sum


@triton.jit(do_not_specialize=_PER_CALL)
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


@triton.jit(do_not_specialize=_PER_CALL)
def finish(
    sums, partials, grad, loss, scale, classes, h, w, cells, count, grad_n, grad_c, grad_h, grad_w,
    rows_size, rows_step, rows_rest, rows_denominator, rows_parts, rows_first, rows_runs,
    columns_size, columns_step, columns_rest, columns_denominator, columns_parts, columns_first, columns_runs,
    GRADIENT: tl.constexpr, MEAN: tl.constexpr, CLAMP: tl.constexpr, SPARSE_ROWS: tl.constexpr,
    SPARSE_COLUMNS: tl.constexpr, WIDE: tl.constexpr, CLASSES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """``loss`` and, unless None, ``scale`` from partial sums; ``grad``: each coarse pixel gathers from its cells."""
    program = tl.program_id(0)
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
