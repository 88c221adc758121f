"""Triton kernels of conv_transpose_add: bound by bytes, so each reads and writes its large tensors once.

Output pixels of one *phase*, a stride apart, meet the same taps of the filter: a program makes rows of one phase, so
that a tap is read once for all of them. Tiles and planes are as in upsample_add.
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
from ...launch import CompileCase, is_wide, launch, record, strides
from ...layout import empty_map, layout_of

_TAPS = 64  # of a row of a filter in one tile, at most


@triton.jit
def _forward(
    x, weight, skip, out, h, w, height, width, channels, k, stride, crop,
    x_n, x_c, x_h, x_w, weight_c, weight_tap, skip_n, skip_c, skip_h, skip_w,
    CHANNELS_LAST: tl.constexpr, SKIP: tl.constexpr, WIDE: tl.constexpr, TAPS: tl.constexpr, ALIGN: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """``out``, dense; TAPS by TAPS of the filter meet in an output pixel."""
    # Said once more for the compiler: these are multiples of ALIGN.
    row_lanes = (width * channels if CHANNELS_LAST else width) // ALIGN * ALIGN
    inner = channels // ALIGN * ALIGN if CHANNELS_LAST else 1
    column_tiles = (row_lanes + LANES - 1) // LANES
    row_tiles = (height + stride * ROWS - 1) // (stride * ROWS) + 1
    program = tl.program_id(0)
    lane = program % column_tiles * LANES + tl.arange(0, LANES)
    program = program // column_tiles
    phase = program % stride
    program = program // stride
    i = crop // stride + program % row_tiles * ROWS + tl.arange(0, ROWS)
    plane = (program // row_tiles).to(tl.int64)
    if CHANNELS_LAST:
        image, channel, column = plane, lane % inner, lane // inner
    else:
        image, channel, column = plane // channels, plane % channels, lane
    y = i * stride + phase - crop
    if WIDE:
        lane, column, channel = lane.to(tl.int64), column.to(tl.int64), channel.to(tl.int64)
        i, y = i.to(tl.int64), y.to(tl.int64)
    inside = lane < row_lanes
    keep = (y >= 0)[:, None] & (y < height)[:, None] & inside[None, :]
    total = tl.zeros((ROWS, LANES), tl.float32)
    if SKIP:
        at = skip + image * skip_n + (column * skip_w + channel * skip_c)[None, :] + y[:, None] * skip_h
        total = tl.load(at, keep, other=0).to(tl.float32)
    j = (column + crop) // stride
    first_tap = column + crop - j * stride
    x += image * x_n
    UNROLLED: tl.constexpr = TAPS if TAPS < 4 else 4
    for first_of_row in range(0, TAPS, UNROLLED):
        for one in tl.static_range(UNROLLED):
            tap = first_of_row + one
            kx = first_tap + tap * stride
            reads = inside & (j >= tap) & (j - tap < w)
            column_at = x + (j - tap) * x_w + channel * x_c
            weight_at = weight + channel * weight_c + kx * weight_tap
            for first_row in range(0, TAPS, UNROLLED):
                for another in tl.static_range(UNROLLED):
                    row_tap = first_row + another
                    ky = phase + row_tap * stride
                    in_filter = reads & (kx < tl.where(ky < k, k, 0))
                    filtered = tl.load(weight_at + ky * k * weight_tap, in_filter, other=0).to(tl.float32)
                    row = (i - row_tap)[:, None]
                    exists = in_filter[None, :] & (row >= 0) & (row < h)
                    values = tl.load(column_at[None, :] + row * x_h, exists, other=0).to(tl.float32)
                    total += filtered[None, :] * values
    at = out + plane * height * row_lanes + y[:, None] * row_lanes + lane[None, :]
    tl.store(at, total.to(out.dtype.element_ty), keep)


@triton.jit
def _backward_x(
    grad, weight, grad_x, h, w, height, width, channels, k, stride, crop,
    grad_n, grad_c, grad_h, grad_w, weight_c, weight_tap,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """``grad_x``, dense: a tile is input columns times INNER taps of a row (NCHW) or INNER channels (channels_last)."""
    channel_tiles = (channels + INNER - 1) // INNER if CHANNELS_LAST else channels
    column_tiles = (w + COLUMNS - 1) // COLUMNS
    row_tiles = (h + ROWS - 1) // ROWS
    program = tl.program_id(0)
    tile = program // column_tiles // row_tiles
    image = (tile // channel_tiles).to(tl.int64)
    i = program // column_tiles % row_tiles * ROWS + tl.arange(0, ROWS)[:, None, None]
    j = (program % column_tiles * COLUMNS + tl.arange(0, COLUMNS))[None, :, None]
    if CHANNELS_LAST:
        tap = 0
        channel = (tile % channel_tiles * INNER + tl.arange(0, INNER))[None, None, :]
        inside = (j < w) & (channel < channels)
    else:
        tap = tl.arange(0, INNER)[None, None, :]
        channel = tile % channels
        inside = j < w
    if WIDE:
        i, j, channel = i.to(tl.int64), j.to(tl.int64), channel.to(tl.int64)
    grad += image * grad_n + channel * grad_c
    weight += channel * weight_c
    total = tl.zeros((ROWS, COLUMNS, INNER), tl.float32)
    for ky in range(0, k):
        y = i * stride + ky - crop
        for first in range(0, k, 1 if CHANNELS_LAST else INNER):
            kx = first + tap
            column = j * stride + kx - crop
            in_filter = channel < channels if CHANNELS_LAST else kx < k
            reads = inside & in_filter & (column >= 0) & (column < width)
            filtered = tl.load(weight + (ky * k + kx) * weight_tap, in_filter, other=0)
            at = grad + y * grad_h + column * grad_w
            total += tl.load(at, reads & (y >= 0) & (y < height), other=0).to(tl.float32) * filtered.to(tl.float32)
    if CHANNELS_LAST:
        at = grad_x + ((image * h + i) * w + j) * channels + channel
        tl.store(at, total.to(grad_x.dtype.element_ty), inside & (i < h))
    else:
        at = grad_x + ((image * channels + channel) * h + i) * w + j
        tl.store(at, tl.sum(total, axis=2, keep_dims=True).to(grad_x.dtype.element_ty), inside & (i < h))


@triton.jit
def _backward_weight(
    grad, x, partial, images, h, w, height, width, channels, k, stride, crop, chunk,
    grad_n, grad_c, grad_h, grad_w, x_n, x_c, x_h, x_w,
    WIDE: tl.constexpr, COLUMNS: tl.constexpr, TAPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """``partial`` ``[chunks, C, k, k]``: sums over ``chunk`` rows of all images, for one row of the filters."""
    channel_tiles = (channels + CHANNELS - 1) // CHANNELS
    tap_tiles = (k + TAPS - 1) // TAPS
    program = tl.program_id(0)
    kx = (program % tap_tiles * TAPS + tl.arange(0, TAPS))[None, :, None]
    program = program // tap_tiles
    ky = program % k
    program = program // k
    channel = (program % channel_tiles * CHANNELS + tl.arange(0, CHANNELS))[None, None, :]
    part = program // channel_tiles
    begin, end = part * chunk, tl.minimum((part + 1) * chunk, images * h)
    lane = tl.arange(0, COLUMNS)[:, None, None]
    kept = (kx < k) & (channel < channels)
    x += (channel.to(tl.int64) if WIDE else channel) * x_c
    grad += (channel.to(tl.int64) if WIDE else channel) * grad_c
    total = tl.zeros((COLUMNS, TAPS, CHANNELS), tl.float32)
    for row in range(begin, end):
        image = (row // h).to(tl.int64)
        i = row % h
        y = i * stride + ky - crop
        # A row that the crop drops has no columns.
        row_width = tl.where((y >= 0) & (y < height), width, 0)
        x_row = x + image * x_n + (tl.cast(i, tl.int64) if WIDE else i) * x_h
        grad_row = grad + image * grad_n + (tl.cast(y, tl.int64) if WIDE else y) * grad_h
        for first in range(0, w, COLUMNS):
            j = first + lane
            column = j * stride + kx - crop
            if WIDE:
                j, column = j.to(tl.int64), column.to(tl.int64)
            from_x = tl.load(x_row + j * x_w, (j < w) & (channel < channels), other=0)
            reads = kept & (j < w) & (column >= 0) & (column < row_width)
            from_grad = tl.load(grad_row + column * grad_w, reads, other=0)
            total += tl.where(reads, from_x.to(tl.float32) * from_grad.to(tl.float32), 0)
    at = partial + ((part.to(tl.int64) * channels + channel) * k + ky) * k + kx
    tl.store(at, tl.sum(total, axis=0, keep_dims=True), kept)


def conv_transpose_add(x: Tensor, weight: Tensor, skip: Tensor | None, stride: int, crop: int, out: Tensor) -> None:
    """Writes ``out``, which is dense; strides of ``x`` and ``skip`` are as they are."""
    if out.numel() == 0:
        return
    n, c, height, width = out.shape
    k = weight.shape[2]
    last = layout_of(out) == "channels_last"
    lanes, planes = (width * c, n) if last else (width, n * c)
    key = {
        "dtype": str(out.dtype).removeprefix("torch."),
        "size": bucket(out.numel()),
        "row": bucket(lanes),
        "CHANNELS_LAST": last,
        "SKIP": skip is not None,
        "WIDE": is_wide(x, skip, out),
        "TAPS": -(-k // stride),
        # Elements of which rows, and with channels_last pixels, are multiples: as far as vectors of 16 bytes need.
        "ALIGN": math.gcd(16 // out.element_size(), c if last else lanes),
    }
    arguments = {
        "x": x, **_filters(weight, last), "skip": skip, "out": out,
        "h": x.shape[2], "w": x.shape[3], "height": height, "width": width, "channels": c,
        "k": k, "stride": stride, "crop": crop, **strides("x", x), **strides("skip", skip),
    }  # fmt: skip

    def programs(config: Config) -> int:
        row_tiles = -(-height // (stride * config["ROWS"])) + 1
        return planes * stride * row_tiles * -(-lanes // config["LANES"])

    # With NCHW the input is sampled number by number: only the skip and the output are rows.
    has_rows = last or skip is not None
    full = key["ALIGN"] == 16 // out.element_size() and lanes * out.element_size() >= 512  # 16 bytes for 32 threads
    launch("conv_transpose_add", _forward, programs, arguments, key, _forward_heuristic, has_rows and full)


def conv_transpose_add_backward_x(grad: Tensor, weight: Tensor, stride: int, crop: int, grad_x: Tensor) -> None:
    """Writes ``grad_x``, the gradient of x, from ``grad``, that of the output."""
    if grad.numel() == 0:
        grad_x.zero_()
        return
    n, c, h, w = grad_x.shape
    k = weight.shape[2]
    last = layout_of(grad_x) == "channels_last"
    key = {
        "dtype": str(grad.dtype).removeprefix("torch."),
        "size": bucket(grad.numel()),
        "row": bucket(w),
        "inner": bucket(c if last else k),
        "CHANNELS_LAST": last,
        "WIDE": is_wide(grad, grad_x),
    }
    arguments = {
        "grad": grad, **_filters(weight, last), "grad_x": grad_x,
        "h": h, "w": w, "height": grad.shape[2], "width": grad.shape[3], "channels": c,
        "k": k, "stride": stride, "crop": crop, **strides("grad", grad),
    }  # fmt: skip

    def programs(config: Config) -> int:
        planes = n * (-(-c // config["INNER"]) if last else c)
        return planes * -(-h // config["ROWS"]) * -(-w // config["COLUMNS"])

    launch("conv_transpose_add", _backward_x, programs, arguments, key, _backward_x_heuristic)


def conv_transpose_add_backward_weight(grad: Tensor, x: Tensor, stride: int, crop: int, grad_weight: Tensor) -> None:
    """Writes ``grad_weight``, the gradient of weight, from ``grad``, that of the output: sums of rows, then theirs."""
    if grad.numel() == 0:
        grad_weight.zero_()
        return
    n, c, h, w = x.shape
    k = grad_weight.shape[2]
    last = layout_of(grad) == "channels_last"
    # By the shape alone, so that results repeat: enough programs for a large GPU, and at least 8 rows for each.
    chunks = max(1, min(n * h // 8, 4096 // (c * k)))
    chunk = -(-n * h // chunks)
    chunks = -(-n * h // chunk)
    partial = torch.empty((chunks, c, k, k), dtype=torch.float32, device=x.device)
    key = {
        "dtype": str(grad.dtype).removeprefix("torch."),
        "size": bucket(grad.numel()),
        "row": bucket(w),
        "filter": bucket(k),
        "lanes": bucket(c) if last else 0,
        "WIDE": is_wide(grad, x),
    }
    arguments = {
        "grad": grad, "x": x, "partial": partial, "images": n, "h": h, "w": w,
        "height": grad.shape[2], "width": grad.shape[3], "channels": c, "k": k, "stride": stride, "crop": crop,
        "chunk": chunk, **strides("grad", grad), **strides("x", x),
    }  # fmt: skip

    def programs(config: Config) -> int:
        return chunks * -(-c // config["CHANNELS"]) * k * -(-k // config["TAPS"])

    launch("conv_transpose_add", _backward_weight, programs, arguments, key, _backward_weight_heuristic)
    grad_weight.copy_(partial.sum(0).view_as(grad_weight))


def _filters(weight: Tensor, channels_last: bool) -> dict[str, Any]:
    """``weight`` with its strides; with channels_last the taps of neighbouring channels are made neighbours."""
    c, _, k, _ = weight.shape
    taps = weight.reshape(c, k * k)
    taps = taps.t().contiguous().t() if channels_last else taps.contiguous()
    return {"weight": taps, "weight_c": taps.stride(0), "weight_tap": taps.stride(1)}


def _forward_heuristic(dtype: str, row: int, **key: Any) -> Config:
    """16 bytes a thread and row; rows share the taps that they read."""
    vector = 4 if dtype == "float32" else 8
    lanes = min(2**row, 64 * vector)
    return {"ROWS": 4, "LANES": lanes, "num_warps": max(1, min(4, lanes // (8 * vector)))}


def _backward_x_heuristic(dtype: str, row: int, inner: int, CHANNELS_LAST: bool, **key: Any) -> Config:
    """With NCHW the taps of a row are next to each other in memory; with channels_last the channels are."""
    inner = min(2**inner, _TAPS if not CHANNELS_LAST or dtype == "float32" else 128)
    columns = max(1, min(2**row, 512 // inner))
    rows = 4 if CHANNELS_LAST else 2
    return {"ROWS": rows, "COLUMNS": columns, "INNER": inner, "num_warps": max(1, min(4, columns * inner // 128))}


def _backward_weight_heuristic(row: int, filter: int, lanes: int, **key: Any) -> Config:
    taps = min(2**filter, _TAPS)
    channels = min(2**lanes, 1024 // taps, 128)
    columns = max(1, min(2**row, 1024 // (taps * channels)))
    tile = columns * taps * channels
    return {"COLUMNS": columns, "TAPS": taps, "CHANNELS": channels, "num_warps": max(1, min(4, tile // 128))}


def compile_cases() -> Iterator[CompileCase]:
    """Every pass in every dtype and layout, for FCN's filters, one of odd size, and with 64-bit offsets."""
    with record() as cases:
        for dtype, layout in itertools.product(
            (torch.float32, torch.bfloat16, torch.float16), ("contiguous", "channels_last")
        ):
            like = torch.empty(0, dtype=dtype, device="meta")
            for h, k, stride in ((64, 4, 2), (64, 16, 8), (64, 64, 32), (64, 5, 2), (4096, 4, 2)):
                x = empty_map(like, (8, 64, h, h), layout)
                out = empty_map(like, (8, 64, h * stride, h * stride), layout)
                weight = like.new_empty((64, 1, k, k))
                conv_transpose_add(x, weight, out, stride, 1, out)
                conv_transpose_add(x, weight, None, stride, 1, out)
                conv_transpose_add_backward_x(out, weight, stride, 1, x)
                conv_transpose_add_backward_weight(out, x, stride, 1, weight)
    yield from cases
