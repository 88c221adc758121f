"""Sums of exponentials, and moments of probabilities, of a patch: by geometric progressions, or one by one."""

from __future__ import annotations

import triton
import triton.language as tl

from ....infinite import along, times
from .corners import any_corners, corners, moments


@triton.jit
def _exponentials(scores, pitch, position):
    """Of one class: at a patch's first pixel, the ratio from column to column, and both ratios from row to row."""
    t_row, row_slope, t_column, column_slope = position
    corner, right, below, both = corners(scores, pitch)
    corner = tl.fma(t_column, right, corner)
    below = tl.fma(t_column, both, below)
    e = tl.exp2(tl.fma(t_row, below, corner))
    ratio = tl.exp2(tl.fma(t_row, both, right) * column_slope)
    return e, ratio, tl.exp2(below * row_slope), tl.exp2(both * (row_slope * column_slope))


@triton.jit
def geometric_sums(
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
def geometric_moments(scores, pitch, position, factors, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
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
def row_scores(scores, pitch, position):
    """Of one class along a row of pixels: the first pixel's score, and the slope from pixel to pixel."""
    t_row, t_column, column_slope = position[0], position[2], position[3]
    corner, right, below, both = any_corners(scores, pitch)
    right = along(right, t_row, both)
    return along(along(corner, t_row, below), t_column, right), times(column_slope, right)


@triton.jit
def score_at(score, slope, k: tl.constexpr):
    """The score of pixel ``k`` of a row. An infinite slope says nothing of the first."""
    return score if k == 0 else tl.fma(slope, k * 1.0, score)


@triton.jit
def exact_sums(scores, plane, classes, pitch, position, LANES: tl.constexpr, COLUMNS: tl.constexpr):
    """For scores of any range, one row: sums of exponentials relative to the pixel's largest, and the largest."""
    start = scores
    peaks = ()
    sums = ()
    for k in tl.static_range(COLUMNS):
        peaks = peaks + (tl.full((LANES,), float("-inf"), tl.float32),)
        sums = sums + (tl.zeros((LANES,), tl.float32),)
    for c in range(0, classes):
        score, slope = row_scores(scores, pitch, position)
        higher = ()
        for k in tl.static_range(COLUMNS):
            higher = higher + (tl.maximum(peaks[k], score_at(score, slope, k)),)
        peaks = higher
        scores += plane
    scores = start
    for c in range(0, classes):
        score, slope = row_scores(scores, pitch, position)
        added = ()
        for k in tl.static_range(COLUMNS):
            added = added + (sums[k] + tl.exp2(score_at(score, slope, k) - peaks[k]),)
        sums = added
        scores += plane
    return sums, peaks


@triton.jit
def exact_moments(scores, pitch, position, factors, peaks, COLUMNS: tl.constexpr):
    score, slope = row_scores(scores, pitch, position)
    p = ()
    for k in tl.static_range(COLUMNS):
        p = p + (times(factors[k], tl.exp2(score_at(score, slope, k) - peaks[k])),)
    return moments(p, 1, COLUMNS)
