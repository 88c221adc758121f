"""Triton kernels of dilated_conv2d: implicit matrix products on channels_last tensors, taps on padding left out."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...configs import Config, bucket, config
from ...launch import CompileCase, is_wide, launch, record
from ...layout import empty_map
from .precision import tf32_allowed


@triton.jit
def _convolve(
    x, weight, bias, out, in_channels, out_channels, in_height, in_width, height, width,
    kernel_height, kernel_width, dilation_h, dilation_w, padding_h, padding_w,
    weight_out, weight_tap, weight_in, first_tap, rows, columns,
    RELU: tl.constexpr, PRECISION: tl.constexpr, WIDE: tl.constexpr,
    PIXELS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr,
):  # fmt: skip
    """``out``, dense: [rows x columns pixels, taps and input channels] times [taps and input channels, channels].

    A program takes a rectangle of pixels, and of the taps those that meet the input somewhere in it.
    """
    blocks, column_tiles, row_tiles = tl.cdiv(out_channels, OUT), tl.cdiv(width, columns), tl.cdiv(height, rows)
    tile = tl.program_id(0) // blocks
    top, left = tile // column_tiles % row_tiles * rows, tile % column_tiles * columns
    image = (tile // column_tiles // row_tiles).to(tl.int64)
    lane = tl.arange(0, PIXELS)
    y, column = top + lane // columns, left + lane % columns
    inside = (lane < rows * columns) & (y < height) & (column < width)
    channel = tl.program_id(0) % blocks * OUT + tl.arange(0, OUT)
    inner = tl.arange(0, IN)
    if WIDE:
        y, column, inner, channel = y.to(tl.int64), column.to(tl.int64), inner.to(tl.int64), channel.to(tl.int64)
    x += image * in_height * in_width * in_channels

    first_y, taps_y = _taps(top, tl.minimum(rows, height - top), in_height, kernel_height, dilation_h, padding_h)
    first_x, taps_x = _taps(left, tl.minimum(columns, width - left), in_width, kernel_width, dilation_w, padding_w)
    chunks = tl.cdiv(in_channels, IN)
    total = tl.zeros((PIXELS, OUT), tl.float32)
    for step in range(taps_y * taps_x * chunks):
        tap, i = step // chunks, step % chunks * IN + inner
        tap_y, tap_x = first_y + tap // taps_x, first_x + tap % taps_x
        source_y, source_x = y + (tap_y * dilation_h - padding_h), column + (tap_x * dilation_w - padding_w)
        meets = inside & (source_y >= 0) & (source_y < in_height) & (source_x >= 0) & (source_x < in_width)
        at = (source_y * in_width + source_x)[:, None] * in_channels + i[None, :]
        values = tl.load(x + at, meets[:, None] & (i < in_channels)[None, :], other=0)
        at = first_tap + (tap_y * kernel_width + tap_x) * weight_tap
        at += i[:, None] * weight_in + channel[None, :] * weight_out
        weights = tl.load(weight + at, (i < in_channels)[:, None] & (channel < out_channels)[None, :], other=0)
        total = tl.dot(values, weights, total, input_precision=PRECISION)

    if bias is not None:
        total += tl.load(bias + channel, channel < out_channels, other=0).to(tl.float32)[None, :]
    if RELU:
        total = tl.where(total < 0, 0, total)
    out += image * height * width * out_channels
    at = (y * width + column)[:, None] * out_channels + channel[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), inside[:, None] & (channel < out_channels)[None, :])


@triton.jit
def _taps(first, count, in_size, taps, dilation, padding):
    """(first tap, number of taps) of an axis that meet the input for any of ``count`` pixels from ``first`` on."""
    begin = tl.cdiv(tl.maximum(padding - first - count + 1, 0), dilation)
    end = tl.minimum(tl.cdiv(tl.maximum(in_size + padding - first, 0), dilation), taps)
    return begin, tl.maximum(end - begin, 0)


@triton.jit
def _weight_gradient(
    grad, x, out, images, in_channels, out_channels, in_height, in_width, height, width,
    kernel_height, kernel_width, dilation_h, dilation_w, padding_h, padding_w, split_pixels,
    PRECISION: tl.constexpr, WIDE: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """``out`` ``[split, O, k, l, I]``: of each tap [channels, pixels] times [pixels, input channels].

    Pixels of a tap are those where it meets the input, a rectangle of every image; a split is ``split_pixels`` of them.
    """
    in_blocks, out_blocks = tl.cdiv(in_channels, IN), tl.cdiv(out_channels, OUT)
    program = tl.program_id(0)
    i = program % in_blocks * IN + tl.arange(0, IN)
    o = program // in_blocks % out_blocks * OUT + tl.arange(0, OUT)
    taps = kernel_height * kernel_width
    tap = program // in_blocks // out_blocks % taps
    split = program // in_blocks // out_blocks // taps
    shift_y = tap // kernel_width * dilation_h - padding_h
    shift_x = tap % kernel_width * dilation_w - padding_w
    top, left = tl.maximum(-shift_y, 0), tl.maximum(-shift_x, 0)
    rows = tl.maximum(tl.minimum(height, in_height - shift_y) - top, 0)
    columns = tl.maximum(tl.minimum(width, in_width - shift_x) - left, 0)
    if WIDE:
        split, rows, i, o = split.to(tl.int64), rows.to(tl.int64), i.to(tl.int64), o.to(tl.int64)
    begin = split * split_pixels
    end = tl.minimum(begin + split_pixels, images * rows * columns)

    # (image, y, column) of each pixel of a block; from one block to the next by adding and carrying.
    safe_rows, safe_columns = tl.maximum(rows, 1), tl.maximum(columns, 1)
    pixel = begin + tl.arange(0, PIXELS)
    column, y = pixel % safe_columns, pixel // safe_columns % safe_rows
    image = pixel // safe_columns // safe_rows
    step_column, step_y = PIXELS % safe_columns, PIXELS // safe_columns % safe_rows
    step_image = PIXELS // safe_columns // safe_rows
    total = tl.zeros((OUT, IN), tl.float32)
    for start in range(begin, end, PIXELS):
        inside = start + tl.arange(0, PIXELS) < end
        at = (image * height + y + top) * width + column + left
        at = at[:, None] * out_channels + o[None, :]
        upstream = tl.load(grad + at, inside[:, None] & (o < out_channels)[None, :], other=0)
        at = (image * in_height + y + (top + shift_y)) * in_width + column + (left + shift_x)
        at = at[:, None] * in_channels + i[None, :]
        values = tl.load(x + at, inside[:, None] & (i < in_channels)[None, :], other=0)
        total = tl.dot(tl.trans(upstream), values, total, input_precision=PRECISION)
        column += step_column
        y += step_y + (column >= columns).to(y.dtype)
        column = tl.where(column >= columns, column - columns, column)
        image += step_image + (y >= rows).to(image.dtype)
        y = tl.where(y >= rows, y - rows, y)

    out += split.to(tl.int64) * out_channels * taps * in_channels
    at = (o[:, None] * taps + tap) * in_channels + i[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), (o < out_channels)[:, None] & (i < in_channels)[None, :])


@triton.jit
def _sum(parts, out, count, splits, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for split in range(splits):
        total += tl.load(parts + tl.cast(split, tl.int64) * count + at, at < count, other=0)
    tl.store(out + at, total.to(out.dtype.element_ty), at < count)


def dilated_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, dilation: list[int], padding: list[int], out: Tensor
) -> None:
    """Writes ``out``. Float32 is computed in TF32 where PyTorch's convolutions are."""
    _, inputs, kernel_height, kernel_width = weight.shape
    strides = {
        "weight_out": kernel_height * kernel_width * inputs, "weight_tap": inputs, "weight_in": 1, "first_tap": 0,
    }  # fmt: skip
    _launch_convolve(x, weight, bias, relu, dilation, padding, out, strides)


def dilated_conv2d_backward_x(
    grad: Tensor, weight: Tensor, dilation: list[int], padding: list[int], grad_x: Tensor
) -> None:
    """Writes ``grad_x``: ``grad`` convolved with the filters turned around, their two kinds of channels exchanged."""
    _, inputs, kernel_height, kernel_width = weight.shape
    taps = kernel_height * kernel_width
    strides = {
        "weight_out": 1, "weight_tap": -inputs, "weight_in": taps * inputs, "first_tap": (taps - 1) * inputs,
    }  # fmt: skip
    padding = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
    _launch_convolve(grad, weight, None, False, dilation, padding, grad_x, strides)


def _launch_convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    relu: bool,
    dilation: list[int],
    padding: list[int],
    out: Tensor,
    strides: dict[str, int],
) -> None:
    images, out_channels, height, width = out.shape
    in_channels, in_height, in_width = x.shape[1:]
    taps = weight.shape[2:]
    key = {
        "dtype": str(x.dtype).removeprefix("torch."),
        "size": bucket(out.numel()),
        "inputs": bucket(in_channels),
        "outputs": bucket(out_channels),
        "aligned": in_channels % 8 == 0 and out_channels % 8 == 0,
        "dilated": max(dilation) > 1,
        "turned": strides["weight_in"] != 1,
        "RELU": relu,
        "PRECISION": _precision(x.dtype),
        "WIDE": is_wide(x, weight[None], out),
    }
    pixels = config("dilated_conv2d", "_convolve", _convolve_heuristic, x.device, **key)["PIXELS"]
    rows, columns = _rectangle(
        pixels, (height, width), (in_height, in_width), tuple(taps), tuple(dilation), tuple(padding)
    )
    arguments = {
        "x": x, "weight": weight, "bias": bias, "out": out, "in_channels": in_channels, "out_channels": out_channels,
        "in_height": in_height, "in_width": in_width, "height": height, "width": width,
        **_geometry(taps, dilation, padding), **strides, "rows": rows, "columns": columns,
    }  # fmt: skip
    tiles = images * triton.cdiv(height, rows) * triton.cdiv(width, columns)

    def programs(constants: dict[str, Any]) -> int:
        return int(tiles * triton.cdiv(out_channels, constants["OUT"]))

    launch("dilated_conv2d", _convolve, programs, arguments, key, _convolve_heuristic, vectorised=bool(key["aligned"]))


def dilated_conv2d_backward_weight(
    grad: Tensor, x: Tensor, dilation: list[int], padding: list[int], grad_weight: Tensor
) -> None:
    """Writes ``grad_weight``: parts over pixels, then their sum in fixed order."""
    images, out_channels, height, width = grad.shape
    in_channels, in_height, in_width = x.shape[1:]
    taps = grad_weight.shape[2:]
    key = {
        "dtype": str(x.dtype).removeprefix("torch."),
        "size": bucket(images * height * width),
        "inputs": bucket(in_channels),
        "outputs": bucket(out_channels),
        "aligned": in_channels % 8 == 0 and out_channels % 8 == 0,
        "PRECISION": _precision(x.dtype),
        "WIDE": is_wide(x[None], grad[None], grad_weight[None]),
    }
    chosen = config("dilated_conv2d", "_weight_gradient", _weight_gradient_heuristic, x.device, **key)
    tiles = taps.numel() * triton.cdiv(out_channels, chosen["OUT"]) * triton.cdiv(in_channels, chosen["IN"])
    blocks = triton.cdiv(images * height * width, chosen["PIXELS"])
    splits = min(triton.cdiv(PROGRAMS, tiles), triton.cdiv(blocks, BLOCKS_OF_A_SPLIT))
    split_pixels = triton.cdiv(blocks, splits) * chosen["PIXELS"]
    parts = grad_weight if splits == 1 else grad.new_empty((splits, grad_weight.numel()), dtype=torch.float32)
    arguments = {
        "grad": grad, "x": x, "out": parts, "images": images, "in_channels": in_channels, "out_channels": out_channels,
        "in_height": in_height, "in_width": in_width, "height": height, "width": width,
        **_geometry(taps, dilation, padding), "split_pixels": split_pixels,
    }  # fmt: skip
    launch(
        "dilated_conv2d", _weight_gradient, lambda _: tiles * splits, arguments, key, _weight_gradient_heuristic,
        vectorised=bool(key["aligned"]) and key["PRECISION"] == "ieee",  # tf32 is transposed while it is copied
    )  # fmt: skip
    if splits > 1:
        count = grad_weight.numel()
        key = {"dtype": str(x.dtype).removeprefix("torch."), "size": bucket(count)}
        arguments = {"parts": parts, "out": grad_weight, "count": count, "splits": splits}

        def programs(constants: dict[str, Any]) -> int:
            return int(triton.cdiv(count, constants["BLOCK"]))

        launch("dilated_conv2d", _sum, programs, arguments, key, _sum_heuristic, vectorised=count % 16 == 0)


# Pixels are split until there are about this many programs, but no further than this many blocks of pixels.
PROGRAMS = 512
BLOCKS_OF_A_SPLIT = 8


def _precision(dtype: torch.dtype) -> str:
    return "tf32" if dtype == torch.float32 and tf32_allowed() else "ieee"


def _geometry(taps: torch.Size, dilation: list[int], padding: list[int]) -> dict[str, int]:
    return {
        "kernel_height": taps[0], "kernel_width": taps[1], "dilation_h": dilation[0], "dilation_w": dilation[1],
        "padding_h": padding[0], "padding_w": padding[1],
    }  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _rectangle(
    pixels: int,
    size: tuple[int, int],
    in_size: tuple[int, int],
    taps: tuple[int, int],
    dilation: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[int, int]:
    """(rows, columns) of at most ``pixels`` pixels with the fewest pairs of tile and tap that meets the input."""

    def pairs(axis: int, extent: int) -> int:
        count = 0
        for first in range(0, size[axis], extent):
            last = min(first + extent, size[axis]) - 1
            shifts = range(-padding[axis], taps[axis] * dilation[axis] - padding[axis], dilation[axis])
            count += sum(first + shift < in_size[axis] and last + shift >= 0 for shift in shifts)
        return count

    widths = {triton.cdiv(size[1], tiles) for tiles in range(1, triton.cdiv(size[1], min(8, size[1])) + 1)}
    candidates = []
    for columns in sorted(width for width in widths if width <= pixels):
        rows = triton.cdiv(size[0], triton.cdiv(size[0], pixels // columns))
        candidates.append((pairs(0, rows) * pairs(1, columns), rows, columns))
    _, rows, columns = min(candidates)
    return rows, columns


def _convolve_heuristic(dtype: str, size: int, inputs: int, outputs: int, PRECISION: str, **key: Any) -> Config:
    """Half precision and TF32 go to tensor cores, in tiles of 128 x 128 where that leaves enough of them."""
    out = 2 ** min(7, max(4, outputs))
    if dtype == "float32" and PRECISION == "ieee":
        return {"PIXELS": 64, "OUT": min(64, out), "IN": 16, "num_warps": 4, "num_stages": 2}
    pixels = 128 if size - 14 >= 7 else 64
    inner = 2 ** min(6 if dtype != "float32" else 5, max(4, inputs))
    return {"PIXELS": pixels, "OUT": out, "IN": inner, "num_warps": 8 if pixels * out == 2**14 else 4, "num_stages": 3}


def _weight_gradient_heuristic(dtype: str, inputs: int, outputs: int, PRECISION: str, **key: Any) -> Config:
    exact = dtype == "float32" and PRECISION == "ieee"  # without tensor cores
    small = exact and min(inputs, outputs) <= 5
    limit = 5 if small else 6 if exact else 7
    out, inner = (2 ** min(limit, max(4, channels)) for channels in (outputs, inputs))
    pixels = 32 if dtype == "float32" and not small else 64
    warps, stages = 8 if out * inner == 2**14 else 4, 2 if exact else 3
    return {"OUT": out, "IN": inner, "PIXELS": pixels, "num_warps": warps, "num_stages": stages}


def _sum_heuristic(**key: Any) -> Config:
    return {"BLOCK": 1024, "num_warps": 4}


def compile_cases() -> Iterator[CompileCase]:
    """Every pass in every dtype, float32 with and without TF32, for FCN's fc6 and for filters of few channels."""
    allowed = torch.backends.cudnn.conv.fp32_precision
    with record() as cases:
        for dtype, precision in (
            (torch.float32, "ieee"), (torch.float32, "tf32"), (torch.bfloat16, allowed), (torch.float16, allowed)
        ):  # fmt: skip
            torch.backends.cudnn.conv.fp32_precision = precision
            try:
                for inputs, outputs in ((512, 1024), (64, 21)):
                    like = torch.empty(0, dtype=dtype, device="meta")
                    x, out = (empty_map(like, (4, c, 64, 64), "channels_last") for c in (inputs, outputs))
                    weight = empty_map(like, (outputs, inputs, 3, 3), "channels_last")
                    dilated_conv2d(x, weight, like.new_empty(outputs), True, [12, 12], [12, 12], out)
                    dilated_conv2d_backward_x(out, weight, [12, 12], [12, 12], x)
                    dilated_conv2d_backward_weight(out, x, [12, 12], [12, 12], weight)
            finally:
                torch.backends.cudnn.conv.fp32_precision = allowed
    yield from cases
