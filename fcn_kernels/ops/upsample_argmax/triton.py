"""Triton kernel of upsample_argmax: lanes are patches of pixels, best scores are in registers, classes are looped.

Exact pruning: inside a cell a class's score lies between its least and its greatest corner, so a class whose greatest
lies below another's least cannot win there. Classes that can win in none of a program's cells leave the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...backend import INTERPRETED
from ...configs import Config, bucket, config
from ...grid import BORDERS, BilinearGrid
from ...infinite import along, difference
from ...launch import CompileCase, is_wide, launch, record
from ...patches import cut, run_of

# A lane's patch: its pixels' best scores and classes stay in registers. The interpreter's time goes by operations.
MOST_ROWS, MOST_COLUMNS = (2, 2) if INTERPRETED else (4, 8)

_PER_CALL = [
    "classes", "h", "w", "cells", "blocks", "rows_size", "rows_step", "rows_rest", "rows_denominator", "rows_reach",
    "rows_least", "rows_first", "rows_runs", "columns_size", "columns_step", "columns_rest", "columns_denominator",
    "columns_reach", "columns_least", "columns_first", "columns_runs",
]  # fmt: skip


@triton.jit
def _corner(cell, size, CLAMP: tl.constexpr):
    """The input index of a corner, and whether there is one."""
    index = tl.minimum(tl.maximum(cell, 0), size - 1)
    return index, (cell == cell) if CLAMP else (index == cell)


@triton.jit
def _load(x, at, exists):
    """One class's scores at the corners: upper left, upper right, lower left, lower right."""
    values = ()
    for i in tl.static_range(4):
        values = values + (tl.load(x + at[i], exists[i], other=0).to(tl.float32),)
    return values


@triton.jit
def _bounds(corners):
    least = tl.minimum(tl.minimum(corners[0], corners[1]), tl.minimum(corners[2], corners[3]))
    greatest = tl.maximum(tl.maximum(corners[0], corners[1]), tl.maximum(corners[2], corners[3]))
    return least, greatest


@triton.jit
def _interpolate(corners, t_row, t_columns, row_slope, FINITE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """One class's scores at a patch's pixels, row by row. Unless FINITE scores may be infinite or NaN."""
    scores = ()
    if not FINITE:
        down_left = difference(corners[0], corners[2])
        down_right = difference(corners[1], corners[3])
        for row in tl.static_range(ROWS):
            t = tl.fma(row_slope, row * 1.0, t_row)
            left = along(corners[0], t, down_left)
            slope = difference(left, along(corners[1], t, down_right))
            for column in tl.static_range(COLUMNS):
                scores = scores + (along(left, t_columns[column], slope),)
        return scores
    right = corners[1] - corners[0]
    below = corners[2] - corners[0]
    both = (corners[3] - corners[2]) - right
    for row in tl.static_range(ROWS):
        t = tl.fma(row_slope, row * 1.0, t_row)
        left = tl.fma(t, below, corners[0])
        slope = tl.fma(t, both, right)
        for column in tl.static_range(COLUMNS):
            scores = scores + (tl.fma(t_columns[column], slope, left),)
    return scores


@triton.jit
def _alive(x, x_c, at, exists, classes, bound):
    """The classes that can win in some cell, as bits; class 32 has that of class 0, and so on."""
    bits = tl.zeros_like(at[0]).to(tl.int32)
    for c in range(0, classes):
        _, greatest = _bounds(_load(x, at, exists))
        bits |= tl.where(greatest >= bound, 1 << (c & 31), 0)
        x += x_c
    return tl.reduce_or(bits, 0)


@triton.jit
def _winners(
    x, x_c, at, exists, classes, alive, t_row, t_columns, row_slope,
    FINITE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Each pixel's largest score and the first class that has it. A NaN wins."""
    best = ()
    winner = ()
    for i in tl.static_range(ROWS * COLUMNS):
        best = best + (tl.full(t_row.shape, float("-inf"), tl.float32),)
        winner = winner + (tl.zeros(t_row.shape, tl.int32),)
    for c in range(0, classes):
        if (alive >> (c & 31)) & 1:
            scores = _interpolate(_load(x, at, exists), t_row, t_columns, row_slope, FINITE, ROWS, COLUMNS)
            better = ()
            classes_of_better = ()
            for i in tl.static_range(ROWS * COLUMNS):
                wins = scores[i] > best[i]
                if not FINITE:
                    wins |= (scores[i] != scores[i]) & (best[i] == best[i])
                better = better + (tl.where(wins, scores[i], best[i]),)
                classes_of_better = classes_of_better + (tl.where(wins, c, winner[i]),)
            best = better
            winner = classes_of_better
        x += x_c
    return best, winner


@triton.jit
def _shares(
    x, x_c, at, exists, classes, best, t_row, t_columns, row_slope,
    FINITE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The softmax probability of each pixel's largest score."""
    sums = ()
    for i in tl.static_range(ROWS * COLUMNS):
        sums = sums + (tl.zeros(t_row.shape, tl.float32),)
    for c in range(0, classes):
        values = _interpolate(_load(x, at, exists), t_row, t_columns, row_slope, FINITE, ROWS, COLUMNS)
        added = ()
        for i in tl.static_range(ROWS * COLUMNS):
            added = added + (sums[i] + tl.exp2((values[i] - best[i]) * 1.4426950408889634),)
        sums = added
        x += x_c
    shares = ()
    for i in tl.static_range(ROWS * COLUMNS):
        shares = shares + (1 / sums[i],)
    return shares


@triton.jit
def _store_row(out, values, row: tl.constexpr, first, inside, COLUMNS: tl.constexpr, PADDED: tl.constexpr):
    """Stores one row of each patch so that lanes side by side write bytes side by side."""
    parts = ()
    for k in tl.static_range(PADDED):
        parts = parts + (values[row * COLUMNS + (k if k < COLUMNS else 0)].to(out.dtype.element_ty),)
    # Joined halves first, so that the last join is of neighbours.
    if PADDED == 8:
        parts = (
            tl.join(parts[0], parts[4]), tl.join(parts[1], parts[5]),
            tl.join(parts[2], parts[6]), tl.join(parts[3], parts[7]),
        )  # fmt: skip
    if PADDED >= 4:
        parts = (tl.join(parts[0], parts[2]), tl.join(parts[1], parts[3]))
    together = tl.join(parts[0], parts[1]) if PADDED >= 2 else parts[0]
    column = tl.arange(0, PADDED)[None, :]
    tl.store(out + first[:, None] + column, tl.reshape(together, inside.shape), inside)


@triton.jit(do_not_specialize=_PER_CALL)
def label_patches(
    x, labels, probability, classes, h, w, cells, blocks, x_n, x_c, x_h, x_w,
    rows_size, rows_step, rows_rest, rows_denominator, rows_parts, rows_reach, rows_least, rows_first, rows_inverse,
    rows_slope, rows_runs, columns_size, columns_step, columns_rest, columns_denominator, columns_parts, columns_reach,
    columns_least, columns_first, columns_inverse, columns_slope, columns_runs,
    CONFIDENCE: tl.constexpr, CLAMP: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, ROW_PIECES: tl.constexpr, SPARSE_ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, COLUMN_PIECES: tl.constexpr, SPARSE_COLUMNS: tl.constexpr,
    PADDED: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """A program takes LANES patches of an image."""
    program = tl.program_id(0)
    n = (program // blocks).to(tl.int64)
    block = program % blocks
    if WIDE:
        block = block.to(tl.int64)
    lane = block * LANES + tl.arange(0, LANES)
    cell = lane // (ROW_PIECES * COLUMN_PIECES)
    piece = lane % (ROW_PIECES * COLUMN_PIECES)
    row_cell, row_start, t_row, row_end = run_of(
        cell // columns_runs, piece // COLUMN_PIECES, rows_size, rows_step, rows_rest, rows_denominator, rows_parts,
        rows_reach, rows_least, rows_inverse, ROWS, ROW_PIECES, SPARSE_ROWS, WIDE,
    )  # fmt: skip
    column_cell, column_start, t_column, column_end = run_of(
        cell % columns_runs, piece % COLUMN_PIECES, columns_size, columns_step, columns_rest, columns_denominator,
        columns_parts, columns_reach, columns_least, columns_inverse, COLUMNS, COLUMN_PIECES, SPARSE_COLUMNS, WIDE,
    )  # fmt: skip
    row_end = tl.where(cell < cells, row_end, 0)
    top, has_top = _corner(row_cell + rows_first, h, CLAMP)
    bottom, has_bottom = _corner(row_cell + rows_first + 1, h, CLAMP)
    left, has_left = _corner(column_cell + columns_first, w, CLAMP)
    right, has_right = _corner(column_cell + columns_first + 1, w, CLAMP)
    if WIDE:
        top, bottom, left, right = top.to(tl.int64), bottom.to(tl.int64), left.to(tl.int64), right.to(tl.int64)
    lane_inside = cell < cells
    at = (top * x_h + left * x_w, top * x_h + right * x_w, bottom * x_h + left * x_w, bottom * x_h + right * x_w)
    exists = (
        has_top & has_left & lane_inside, has_top & has_right & lane_inside,
        has_bottom & has_left & lane_inside, has_bottom & has_right & lane_inside,
    )  # fmt: skip
    x += n * x_n
    x_c = tl.cast(x_c, tl.int64)

    bound = tl.full((LANES,), float("-inf"), tl.float32)
    size = tl.zeros((LANES,), tl.float32)
    poison = tl.zeros((LANES,), tl.float32)  # becomes NaN where a score is not finite
    scores = x
    for c in range(0, classes):
        corners = _load(scores, at, exists)
        least, greatest = _bounds(corners)
        bound = tl.maximum(bound, least)
        size = tl.maximum(size, tl.maximum(greatest, -least))
        poison = tl.fma((corners[0] + corners[1]) + (corners[2] + corners[3]), 0.0, poison)
        scores += x_c
    finite = tl.min((poison == 0).to(tl.int32), 0) > 0
    t_columns = ()
    for column in tl.static_range(COLUMNS):
        t_columns = t_columns + (tl.fma(columns_slope, column * 1.0, t_column),)
    if finite:
        # The margin covers the rounding of interpolated scores, so no winner is lost, ties included.
        alive = _alive(x, x_c, at, exists, classes, bound - size * 2e-6)
        best, winner = _winners(
            x, x_c, at, exists, classes, alive, t_row, t_columns, rows_slope, True, ROWS, COLUMNS
        )  # fmt: skip
    else:
        best, winner = _winners(
            x, x_c, at, exists, classes, -1, t_row, t_columns, rows_slope, False, ROWS, COLUMNS
        )  # fmt: skip

    columns = column_start[:, None] + tl.arange(0, PADDED)[None, :]
    columns_inside = (columns >= 0) & (columns < column_end[:, None])
    image = n * rows_size * columns_size
    if CONFIDENCE:
        if finite:
            shares = _shares(x, x_c, at, exists, classes, best, t_row, t_columns, rows_slope, True, ROWS, COLUMNS)
        else:
            shares = _shares(x, x_c, at, exists, classes, best, t_row, t_columns, rows_slope, False, ROWS, COLUMNS)
    for row in tl.static_range(ROWS):
        y = row_start + row
        inside = columns_inside & ((y >= 0) & (y < row_end))[:, None]
        if WIDE:
            y = y.to(tl.int64)
        first = y * columns_size + column_start
        _store_row(labels + image, winner, row, first, inside, COLUMNS, PADDED)
        if CONFIDENCE:
            _store_row(probability + image, shares, row, first, inside, COLUMNS, PADDED)


def upsample_argmax(x: Tensor, grid: list[int], labels: Tensor, probability: Tensor | None = None) -> None:
    """Writes ``labels`` and, unless None, ``probability``."""
    n, classes, h, w = x.shape
    rows, columns = cut(grid, 0, h, MOST_ROWS, 8), cut(grid, 1, w, MOST_COLUMNS, 4)
    cells = rows.runs * columns.runs
    key: dict[str, Any] = {
        "dtype": str(x.dtype).removeprefix("torch."),
        "size": bucket(n * cells),
        "LABELS": str(labels.dtype).removeprefix("torch."),
        "CONFIDENCE": probability is not None,
        "CLAMP": BORDERS[grid[8]] == "clamp",
        "WIDE": is_wide(x, labels) or rows.wide or columns.wide,
        "ROWS": rows.run,
        "ROW_PIECES": rows.pieces,
        "SPARSE_ROWS": rows.sparse,
        "COLUMNS": columns.run,
        "COLUMN_PIECES": columns.pieces,
        "SPARSE_COLUMNS": columns.sparse,
        "PADDED": triton.next_power_of_2(columns.run),
    }
    pieces = rows.pieces * columns.pieces
    lanes = config("upsample_argmax", "label_patches", _heuristic, x.device, **key)["LANES"]
    blocks = triton.cdiv(cells * pieces, lanes)
    arguments = {
        "x": x, "labels": labels, "probability": probability, "classes": classes, "h": h, "w": w, "cells": cells,
        "blocks": blocks, **dict(zip(("x_n", "x_c", "x_h", "x_w"), x.stride(), strict=True)),
        **rows.arguments("rows"), **columns.arguments("columns"),
    }  # fmt: skip
    launch("upsample_argmax", label_patches, lambda _: n * blocks, arguments, key, _heuristic)


def _heuristic(**key: Any) -> Config:
    """One warp: few classes survive in its cells."""
    return {"LANES": 512 if INTERPRETED else 32, "num_warps": 1}


def compile_cases() -> Iterator[CompileCase]:
    """FCN's strides, with and without confidence, in each dtype and layout."""
    with record() as cases:
        for stride in (1, 2, 4, 8, 16, 32):
            for dtype in (torch.float32, torch.bfloat16, torch.float16) if stride == 8 else (torch.float32,):
                layout = torch.channels_last if dtype == torch.bfloat16 else torch.contiguous_format
                x = torch.empty((8, 21, 64, 64), dtype=dtype, device="meta", memory_format=layout)
                grid = BilinearGrid.interpolate((64, 64), (64 * stride, 64 * stride)).as_ints()
                labels = x.new_empty((8, 64 * stride, 64 * stride), dtype=torch.uint8)
                upsample_argmax(x, grid, labels, None)
                upsample_argmax(x, grid, labels, x.new_empty(labels.shape, dtype=torch.float32))
    yield from cases
