"""Triton kernels of upsample_add: bound by bytes, so each reads and writes its large tensor once, in rows.

A program makes a tile of rows times *lanes*: the pixels of a row with NCHW, its pixels and channels with channels_last.
Lanes are contiguous in memory either way; a *plane* is what is left: one channel of an image, or an image.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...configs import Config, bucket
from ...grid import BilinearGrid
from ...launch import CompileCase, is_wide, launch, record, strides
from ...layout import empty_map, layout_of
from ...sampling import axis_arguments, clamps, coordinate, floor, needs_int64, weight


@triton.jit
def _forward(
    x, skip, out, h, w, height, width, channels,
    x_n, x_c, x_h, x_w, skip_n, skip_c, skip_h, skip_w,
    rows_step, rows_origin, rows_denominator, rows_inverse,
    columns_step, columns_origin, columns_denominator, columns_inverse,
    CHANNELS_LAST: tl.constexpr, SKIP: tl.constexpr, CLAMP: tl.constexpr, INT64: tl.constexpr, WIDE: tl.constexpr,
    ALIGN: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """``out``, dense, row by row: two input rows, mixed horizontally, stay in registers for the output rows between."""
    # Said once more for the compiler: these are multiples of ALIGN.
    row_lanes = (width * channels if CHANNELS_LAST else width) // ALIGN * ALIGN
    inner = channels // ALIGN * ALIGN if CHANNELS_LAST else 1
    column_tiles = (row_lanes + LANES - 1) // LANES
    row_tiles = (height + ROWS - 1) // ROWS
    program = tl.program_id(0)
    plane = (program // column_tiles // row_tiles).to(tl.int64)
    top = program // column_tiles % row_tiles * ROWS
    bottom = tl.minimum(top + ROWS, height)
    lane = program % column_tiles * LANES + tl.arange(0, LANES)
    inside = lane < row_lanes
    if CHANNELS_LAST:
        image, channel, column = plane, lane % inner, lane // inner
    else:
        image, channel, column = plane // channels, plane % channels, lane
    u = coordinate(column, columns_step, columns_origin, columns_denominator, w, CLAMP, INT64)
    left = floor(u, columns_denominator)
    right_weight = (u - left * columns_denominator).to(tl.float32) * columns_inverse
    has_left = inside & (left >= 0) & (left < w)
    has_right = inside & (left + 1 < w) & (right_weight > 0)
    if WIDE:
        left, column, channel = left.to(tl.int64), column.to(tl.int64), channel.to(tl.int64)
    x += image * x_n + left * x_w + channel * x_c
    skip_row = skip
    if SKIP:
        skip_row = skip + image * skip_n + top.to(tl.int64) * skip_h + column * skip_w + channel * skip_c
        upcoming = tl.load(skip_row, inside, other=0)
    out_row = out + (plane * height + top) * row_lanes + lane

    v = coordinate(top, rows_step, rows_origin, rows_denominator, h, CLAMP, INT64)
    upper = floor(v, rows_denominator) - 1
    above = tl.zeros((LANES,), tl.float32)
    below = _mixed_row(x, upper + 1, h, x_h, x_w, right_weight, has_left, has_right, WIDE)
    for y in range(top, bottom):
        v = coordinate(y, rows_step, rows_origin, rows_denominator, h, CLAMP, INT64)
        i = floor(v, rows_denominator)
        if i > upper:
            if i == upper + 1:
                above = below
            else:
                above = _mixed_row(x, i, h, x_h, x_w, right_weight, has_left, has_right, WIDE)
            below = _mixed_row(x, i + 1, h, x_h, x_w, right_weight, has_left, has_right, WIDE)
            upper = i
        lower_weight = tl.maximum(v - i * rows_denominator, 0).to(tl.float32) * rows_inverse
        total = above * (1 - lower_weight) + below * lower_weight
        if SKIP:
            total += upcoming.to(tl.float32)
            skip_row += skip_h
            upcoming = tl.load(skip_row, lane < tl.where(y + 1 < bottom, row_lanes, 0), other=0)
        tl.store(out_row, total.to(out.dtype.element_ty), inside)
        out_row += row_lanes


@triton.jit
def _mixed_row(x, i, h, x_h, x_w, right_weight, has_left, has_right, WIDE: tl.constexpr):
    """Row ``i`` of the input mixed for each lane's column; zeros where there is no such row."""
    row = tl.minimum(tl.maximum(i, 0), h - 1)
    at = x + (tl.cast(row, tl.int64) if WIDE else row) * x_h
    left = tl.load(at, has_left, other=0).to(tl.float32)
    right = tl.load(at + x_w, has_right, other=0).to(tl.float32)
    return tl.where(i == row, left * (1 - right_weight) + right * right_weight, 0)


@triton.jit
def _backward(
    grad, grad_x, h, w, height, width, channels, grad_n, grad_c, grad_h, grad_w,
    rows_step, rows_origin, rows_denominator, rows_inverse,
    columns_step, columns_origin, columns_denominator, columns_inverse, reach,
    CHANNELS_LAST: tl.constexpr, CLAMP: tl.constexpr, INT64: tl.constexpr, WIDE: tl.constexpr, REACH: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """``grad_x``, dense: what forward reads, read by the adjoint, each input pixel gathering from its output pixels.

    Output rows are read once, in order; each goes into the sums of the two input rows it lies between. A tile is input
    columns times either INNER output columns that read them (NCHW) or INNER channels (channels_last).
    """
    channel_tiles = (channels + INNER - 1) // INNER if CHANNELS_LAST else channels
    column_tiles = (w + COLUMNS - 1) // COLUMNS
    row_tiles = (h + ROWS - 1) // ROWS
    program = tl.program_id(0)
    tile = program // column_tiles // row_tiles
    image = (tile // channel_tiles).to(tl.int64)
    top = program // column_tiles % row_tiles * ROWS
    j = (program % column_tiles * COLUMNS + tl.arange(0, COLUMNS))[:, None]
    if CHANNELS_LAST:
        tap = 0
        channel = (tile % channel_tiles * INNER + tl.arange(0, INNER))[None, :]
        inside = (j < w) & (channel < channels)
    else:
        tap = tl.arange(0, INNER)[None, :]
        channel = tile % channels
        inside = j < w
    if WIDE:
        channel = channel.to(tl.int64)
    if INT64:
        j = j.to(tl.int64)
    first = _first_output(j - 1, width, columns_step, columns_origin, columns_denominator, INT64)
    first = tl.where(j == 0, 0, first) + tap if CLAMP else first + tap
    grad += image * grad_n + channel * grad_c
    hoisted: tl.constexpr = not CHANNELS_LAST and REACH <= INNER  # all output columns in one tile, the same in each row
    if hoisted:
        u = coordinate(first, columns_step, columns_origin, columns_denominator, w, CLAMP, INT64)
        column_weight = weight(u, j, columns_denominator, columns_inverse)
        reads = (first < width) & inside & (column_weight > 0)
        first_at = grad + (first.to(tl.int64) if WIDE else first) * grad_w
    above = tl.zeros((COLUMNS, INNER), tl.float32)
    below = above
    start = _first_output(top - 1, height, rows_step, rows_origin, rows_denominator, INT64)
    if CLAMP:  # what lies beyond the border lies at the border
        start = tl.where(top <= 1, 0, start)
    for i in range(top - 1, tl.minimum(top + ROWS, h)):
        end = _first_output(i + 1, height, rows_step, rows_origin, rows_denominator, INT64)
        if CLAMP:
            end = tl.where(i < 0, 0, tl.where(i == h - 1, height, end))
        for y in range(start, end):
            row = (tl.cast(y, tl.int64) if WIDE else y) * grad_h
            if hoisted:
                mixed = tl.load(first_at + row, reads, other=0).to(tl.float32) * column_weight
            else:
                mixed = tl.zeros((COLUMNS, INNER), tl.float32)
                for k in range(0, reach, 1 if CHANNELS_LAST else INNER):
                    column = first + k
                    u = coordinate(column, columns_step, columns_origin, columns_denominator, w, CLAMP, INT64)
                    column_weight = weight(u, j, columns_denominator, columns_inverse)
                    reads = (column < width) & inside & (column_weight > 0)
                    at = grad + row + (column.to(tl.int64) if WIDE else column) * grad_w
                    mixed += tl.load(at, reads, other=0).to(tl.float32) * column_weight
            v = coordinate(y, rows_step, rows_origin, rows_denominator, h, CLAMP, INT64)
            lower_weight = (v - (tl.cast(i, tl.int64) if INT64 else i) * rows_denominator).to(tl.float32) * rows_inverse
            above += (1 - lower_weight) * mixed
            below += lower_weight * mixed
        if i >= top:
            if CHANNELS_LAST:
                at = grad_x + ((image * h + i) * w + j) * channels + channel
                tl.store(at, above.to(grad_x.dtype.element_ty), inside)
            else:
                at = grad_x + ((image * channels + channel) * h + i) * w + j
                tl.store(at, tl.sum(above, axis=1, keep_dims=True).to(grad_x.dtype.element_ty), inside)
        above = below
        below = tl.zeros((COLUMNS, INNER), tl.float32)
        start = end


@triton.jit
def _first_output(i, outputs, step, origin, denominator, INT64: tl.constexpr):
    """The first output pixel at input pixel ``i`` or behind."""
    if INT64:
        i = tl.cast(i, tl.int64)
    ahead = i * denominator - origin  # step * y of output pixels there
    first = tl.where(step == 0, outputs, tl.minimum((ahead + step - 1) // tl.maximum(step, 1), outputs))
    return tl.where(ahead <= 0, 0, first).to(tl.int32)


def upsample_add(x: Tensor, skip: Tensor | None, grid: list[int], out: Tensor) -> None:
    """Writes ``out``, which is dense; strides of ``x`` and ``skip`` are as they are."""
    if out.numel() == 0:
        return
    n, c, height, width = out.shape
    h, w = x.shape[2], x.shape[3]
    last = layout_of(out) == "channels_last"
    lanes, planes = (width * c, n) if last else (width, n * c)
    key = {
        "dtype": str(out.dtype).removeprefix("torch."),
        "size": bucket(out.numel()),
        "row": bucket(lanes),
        "CHANNELS_LAST": last,
        "SKIP": skip is not None,
        "CLAMP": clamps(grid),
        "INT64": needs_int64(grid, (h, w)),
        "WIDE": is_wide(x, skip, out),
        # Elements of which rows, and with channels_last pixels, are multiples: as far as vectors of 16 bytes need.
        "ALIGN": math.gcd(16 // out.element_size(), c if last else lanes),
    }
    arguments = {
        "x": x, "skip": skip, "out": out, "h": h, "w": w, "height": height, "width": width, "channels": c,
        **strides("x", x), **strides("skip", skip),
        **axis_arguments("rows", grid, 0), **axis_arguments("columns", grid, 1),
    }  # fmt: skip

    def programs(config: Config) -> int:
        return planes * -(-height // config["ROWS"]) * -(-lanes // config["LANES"])

    # With NCHW the input is sampled number by number: only the skip and the output are rows.
    has_rows = last or skip is not None
    full = key["ALIGN"] == 16 // out.element_size() and lanes * out.element_size() >= 512  # 16 bytes for 32 threads
    launch("upsample_add", _forward, programs, arguments, key, _forward_heuristic, has_rows and full)


def upsample_add_backward(grad: Tensor, grid: list[int], grad_x: Tensor) -> None:
    """Writes ``grad_x``, the gradient of x, from ``grad``, that of the output."""
    if grad.numel() == 0:
        grad_x.zero_()
        return
    n, c, h, w = grad_x.shape
    last = layout_of(grad_x) == "channels_last"
    reach = _reach(grid, 1, w)
    key = {
        "dtype": str(grad.dtype).removeprefix("torch."),
        "size": bucket(grad.numel()),
        "row": bucket(w),
        "channels": bucket(c),
        "CHANNELS_LAST": last,
        "CLAMP": clamps(grid),
        "INT64": needs_int64(grid, (h, w)),
        "WIDE": is_wide(grad, grad_x),
        "REACH": 2 ** bucket(reach),
    }
    arguments = {
        "grad": grad, "grad_x": grad_x, "h": h, "w": w, "height": grid[0], "width": grid[1], "channels": c,
        **strides("grad", grad), **axis_arguments("rows", grid, 0), **axis_arguments("columns", grid, 1),
        "reach": reach,
    }  # fmt: skip

    def programs(config: Config) -> int:
        planes = n * (-(-c // config["INNER"]) if last else c)
        return planes * -(-h // config["ROWS"]) * -(-w // config["COLUMNS"])

    launch("upsample_add", _backward, programs, arguments, key, _backward_heuristic, vectorised=last)


def _forward_heuristic(dtype: str, size: int, row: int, WIDE: bool, **key: Any) -> Config:
    """16 bytes a thread and row; strips as long as leave enough programs for every processor of a large GPU."""
    vector = 4 if dtype == "float32" and not WIDE else 8  # with 64-bit offsets 4 come out with a spill on sm_80
    lanes = min(2**row, 128 * vector)
    rows = min(32, max(4, 2 ** (size - 12) // lanes))
    return {"ROWS": rows, "LANES": lanes, "num_warps": max(1, lanes // (32 * vector))}


def _backward_heuristic(
    dtype: str, size: int, row: int, channels: int, CHANNELS_LAST: bool, REACH: int, **key: Any
) -> Config:  # fmt: skip
    """With NCHW output columns of one input column are next to each other in memory; with channels_last, channels."""
    inner = min(2**channels, 64 if dtype == "float32" else 128) if CHANNELS_LAST else min(64, REACH)
    columns = max(1, min(2**row, 1024 // inner))
    return {"ROWS": 8, "COLUMNS": columns, "INNER": inner, "num_warps": max(1, min(4, columns * inner // 128))}


def _reach(grid: list[int], axis: int, size: int) -> int:
    """The most output pixels of ``axis`` that read one input pixel."""
    outputs, (step, origin, denominator) = grid[axis], grid[2 + 3 * axis : 5 + 3 * axis]
    if step == 0:
        return outputs
    reach = -(-2 * denominator // step)
    if clamps(grid):  # what lies beyond the border reads the first or the last input pixel
        before_second = -(-(denominator - origin) // step)
        from_next_to_last = outputs + (origin - (size - 2) * denominator) // step
        reach = max(reach, before_second, from_next_to_last)
    return min(reach, outputs)


def compile_cases() -> Iterator[CompileCase]:
    """Both passes in every dtype and layout, for enlarging, by both conventions, reducing, and 64-bit numbers."""
    with record() as cases:
        for dtype, layout in itertools.product(
            (torch.float32, torch.bfloat16, torch.float16), ("contiguous", "channels_last")
        ):
            like = torch.empty(0, dtype=dtype, device="meta")
            for h, height in ((128, 256), (128, 512), (128, 64), (4096, 8192)):
                x = empty_map(like, (8, 64, h, h), layout)
                out = empty_map(like, (8, 64, height, height), layout)
                fine = 2**20  # the same grid in larger numbers
                for grid in (
                    BilinearGrid.interpolate((h, h), (height, height)),
                    BilinearGrid.transposed(4, 3, (height, height)),
                    BilinearGrid((height, height), (fine, fine), (0, 0), (2 * fine, 2 * fine)),
                ):
                    upsample_add(x, out, grid.as_ints(), out)
                    upsample_add(x, None, grid.as_ints(), out)
                    upsample_add_backward(out, grid.as_ints(), x)
    yield from cases
