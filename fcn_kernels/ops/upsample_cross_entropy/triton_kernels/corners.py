"""Between the four corners of a cell: scores of pixels, and sums over pixels that go to the corners."""

from __future__ import annotations

import triton
import triton.language as tl

from ....infinite import along, difference


@triton.jit
def corners(at, pitch):
    """At the upper left corner of each lane's cell: the score and its slopes along columns, rows and both."""
    corner = tl.load(at)
    right = tl.load(at + 1) - corner
    below = tl.load(at + pitch)
    both = (tl.load(at + pitch + 1) - below) - right
    return corner, right, below - corner, both


@triton.jit
def any_corners(at, pitch):
    """The same of scores that need not be finite: each a ``difference``."""
    corner = tl.load(at)
    right = difference(corner, tl.load(at + 1))
    left_below = tl.load(at + pitch)
    right_below = difference(left_below, tl.load(at + pitch + 1))
    return corner, right, difference(corner, left_below), difference(right, right_below)


@triton.jit
def any_score(corners, u, v):
    """At position ``u`` between the rows of ``any_corners`` and ``v`` between the columns."""
    corner, right, below, both = corners
    return along(along(corner, u, below), v, along(right, u, both))


@triton.jit
def moments(values, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
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
def positions(moments, position):
    """From moments in pixels, counted from a patch's first, to moments in the position between the corners."""
    total, column, row, both = moments
    t_row, row_slope, t_column, column_slope = position
    both = t_row * (t_column * total + column_slope * column) + row_slope * (t_column * row + column_slope * both)
    return total, t_column * total + column_slope * column, t_row * total + row_slope * row, both


@triton.jit
def store_corners(moments, position, sums, cells, keep, again, PIECES: tl.constexpr):
    """What each corner gets of a class's gradient, the pieces of a run added; on top of what is there if ``again``."""
    total, column, row, both = positions(moments, position)
    corners = ((total - row) - (column - both), column - both, row - both, both)
    for i in tl.static_range(4):
        value = tl.sum(tl.reshape(corners[i], (total.shape[0] // PIECES, PIECES)), 1)
        value += tl.load(sums + i * cells, keep & again, other=0)
        tl.store(sums + i * cells, value, keep)
