"""What labels say of a patch: weights of its pixels, and the scores and moments of their classes."""

from __future__ import annotations

import triton
import triton.language as tl

from ....infinite import times
from .corners import any_corners, any_score, moments, positions
from .units import LN2


@triton.jit
def normalise(
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
                pixel -= tl.where(c >= 0, times(hard * label_weight, any_score(any_corners(scores, pitch), u, v)), 0.0)
                if SMOOTH:
                    scores = packed + tl.cast(classes + 1, tl.int64) * plane + at
                    pixel -= tl.where(c >= 0, times(smoothing * w, any_score(any_corners(scores, pitch), u, v)), 0.0)
                tl.store(pixel_loss + (y * width + x), pixel * LN2, inside)
            loss += pixel
            factors = factors + (tl.where(c >= 0, sum_weight / s, 0.0),)
            labels = labels + (c,)
    return loss, weight_sum, factors, labels, weights


@triton.jit
def present(labels, COUNT: tl.constexpr):
    """Which labels some lane has, as bits; label 32 has that of label 0, and so on."""
    bits = tl.zeros_like(labels[0])
    for i in tl.static_range(COUNT):
        bits |= tl.where(labels[i] < 0, 0, 1 << (labels[i] & 31))
    return tl.reduce_or(bits, 0)


@triton.jit
def label_moments(
    labels, weights, c, ANY: tl.constexpr, WEIGHED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Moments of the weights of the pixels with label ``c``, or with any."""
    chosen = ()
    for i in tl.static_range(ROWS * COLUMNS):
        mine = labels[i] >= 0 if ANY else labels[i] == c
        chosen = chosen + (tl.where(mine, weights[i] if WEIGHED else 1.0, 0.0),)
    return moments(chosen, ROWS, COLUMNS)


@triton.jit
def weighted_scores(moments, scores, pitch, position):
    """The sum of a class's scores over a patch's pixels, weighed as the moments' pixels are."""
    total, columns, rows, both = positions(moments, position)
    corner, right, below, slope = any_corners(scores, pitch)
    return times(total, corner) + times(columns, right) + times(rows, below) + times(both, slope)
