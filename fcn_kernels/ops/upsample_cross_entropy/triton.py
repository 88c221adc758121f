"""Launches the Triton kernels of upsample_cross_entropy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from ...backend import INTERPRETED
from ...configs import Config, bucket, config
from ...grid import BORDERS, BilinearGrid
from ...launch import CompileCase, is_wide, launch, record
from ...loss import LossCall
from ...patches import BORDER, Axis, cut
from .triton_kernels import finish, pack, patches

# True makes every program take the exact path (one exponential per pixel and class): for tests and benchmarks.
force_exact = False

# A lane's patch: its pixels' sums and labels stay in registers. The interpreter's time goes by operations.
MOST_ROWS, MOST_COLUMNS = (2, 2) if INTERPRETED else (4, 8)
ROW_PIECES, COLUMN_PIECES = 4, 2  # at most, in lanes side by side

NAME = "upsample_cross_entropy"


def upsample_cross_entropy(
    call: LossCall, grid: list[int], loss: Tensor, grad: Tensor | None = None, scale: Tensor | None = None
) -> None:
    """Writes ``loss`` and, unless None, ``grad`` (of the sum over pixels) and ``scale`` (the factor that it lacks)."""
    _launch(call, grid, None, (loss, grad, scale))


def upsample_cross_entropy_pixels(call: LossCall, grid: list[int], loss: Tensor) -> None:
    """Writes ``loss``, one for each pixel."""
    _launch(call, grid, loss, None)


def _launch(
    call: LossCall,
    grid: list[int],
    pixel_loss: Tensor | None,
    reduced: tuple[Tensor, Tensor | None, Tensor | None] | None,
) -> None:
    """Writes ``pixel_loss``, or loss, gradient and scale."""
    x, target, (weight, pixel_weight) = call.scores, call.target, call.weights()
    grad = reduced[1] if reduced else None
    n, classes, h, w = x.shape
    most_rows = MOST_ROWS if pixel_weight is None else min(2, MOST_ROWS)  # weights take registers as labels do
    rows, columns = cut(grid, 0, h, most_rows, ROW_PIECES), cut(grid, 1, w, MOST_COLUMNS, COLUMN_PIECES)
    pitch = w + 2 * BORDER.value
    plane = pitch * (h + 2 * BORDER.value)
    cells = rows.runs * columns.runs
    smooth = call.label_smoothing > 0
    shared = {
        "CLAMP": BORDERS[grid[8]] == "clamp",
        "SMOOTH": smooth,
        "WIDE": is_wide(x, target, pixel_weight) or rows.wide or columns.wide or max(plane, cells) >= 2**30,
    }
    packed = pack_scores(NAME, x, weight, plane, pitch, shared)
    key: dict[str, Any] = {
        "dtype": "float32",
        "size": bucket(n * cells),
        "TARGET": str(target.dtype).removeprefix("torch."),
        "WEIGHTS": (weight is not None, pixel_weight is not None),
        # Ratios between pixels more than half a cell apart may overflow, and there is nothing to gain from them.
        "GEOMETRIC": not force_exact and rows.slope <= 0.5 and columns.slope <= 0.5,
        "GRADIENT": grad is not None,
        "PIXELS": pixel_loss is not None,
        "SMOOTH": smooth,
        "WIDE": shared["WIDE"],
        "ROWS": rows.run,
        "ROW_PIECES": rows.pieces,
        "SPARSE_ROWS": rows.sparse,
        "COLUMNS": columns.run,
        "COLUMN_PIECES": columns.pieces,
        "SPARSE_COLUMNS": columns.sparse,
    }
    lanes = config(NAME, "patches", _patches_heuristic, x.device, **key)["LANES"]
    blocks = triton.cdiv(cells, lanes // (rows.pieces * columns.pieces))
    sums = None if grad is None else x.new_empty(n * classes * 4 * cells, dtype=torch.float32)
    partials = x.new_empty((n * blocks, 2), dtype=torch.float32) if reduced else None
    arguments = {
        "packed": packed, "target": target, "weight": weight,
        "weight_total": weight.sum() if smooth and weight is not None else None,
        "pixel_weight": pixel_weight, "sums": sums, "partials": partials, "pixel_loss": pixel_loss,
        "classes": classes, "h": h, "w": w, "cells": cells, "blocks": blocks, "plane": plane, "pitch": pitch,
        **strides("target", target, "nhw"), **strides("pixel_weight", pixel_weight, "nhw"),
        "ignore_index": call.ignore_index,
        "hard": 1 - call.label_smoothing, "smoothing": call.label_smoothing / classes,
        **rows.arguments("rows"), **columns.arguments("columns"),
    }  # fmt: skip
    launch(NAME, patches, _programs(n * blocks), arguments, key, _patches_heuristic)
    if reduced is None:
        return

    _finish(NAME, x, sums, (partials, *reduced), rows, columns, shared, call.reduction == "mean", n * blocks)


def pack_scores(
    operator: str, x: Tensor, weight: Tensor | None, plane: int, pitch: int, options: dict[str, bool]
) -> Tensor:
    """What ``pack`` writes; ``options``: CLAMP, SMOOTH and WIDE."""
    n, classes, h, w = x.shape
    packed = x.new_empty(n * (classes + 2) * plane, dtype=torch.float32)
    key: dict[str, Any] = {
        "dtype": str(x.dtype).removeprefix("torch."),
        "size": bucket(packed.numel()),
        "CHANNELS_LAST": x.stride(1) == 1,
        "CLASSES": min(32, triton.next_power_of_2(classes)),
        **options,
    }
    blocks = triton.cdiv(plane, config(operator, "pack", _pack_heuristic, x.device, **key)["LANES"])
    arguments: dict[str, Any] = {
        "x": x, "weight": weight, "packed": packed, "classes": classes, "h": h, "w": w, "blocks": blocks,
        "plane": plane, "pitch": pitch, **strides("x", x, "nchw"),
    }  # fmt: skip
    launch(operator, pack, _programs(n * blocks), arguments, key, _pack_heuristic)
    return packed


def finish_gradient(
    operator: str, x: Tensor, sums: Tensor | None, grad: Tensor, rows: Axis, columns: Axis, clamp: bool, wide: bool
) -> None:
    """Writes ``grad`` of ``x`` from the ``sums`` at the corners of cells."""
    options = {"CLAMP": clamp, "WIDE": wide}
    _finish(operator, x, sums, (None, None, grad, None), rows, columns, options, False, 0)


def _finish(
    operator: str,
    x: Tensor,
    sums: Tensor | None,
    tensors: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    rows: Axis,
    columns: Axis,
    options: dict[str, bool],
    mean: bool,
    count: int,
) -> None:
    """``tensors``: the ``count`` partial sums of a loss, the loss, the gradient, and its scale."""
    n, classes, h, w = x.shape
    partials, loss, grad, scale = tensors
    key = {
        "dtype": "float32",
        "size": bucket(x.numel()),
        "GRADIENT": grad is not None,
        "MEAN": mean,
        "CLAMP": options["CLAMP"],
        "SPARSE_ROWS": rows.sparse,
        "SPARSE_COLUMNS": columns.sparse,
        "WIDE": options["WIDE"],
    }
    axes = {**rows.arguments("rows"), **columns.arguments("columns")}
    arguments = {
        "sums": sums, "partials": partials, "grad": grad, "loss": loss, "scale": scale, "classes": classes,
        "h": h, "w": w, "cells": rows.runs * columns.runs, "count": count, **strides("grad", grad, "nchw"),
        **{name: value for name, value in axes.items() if name in finish.arg_names},
    }  # fmt: skip

    def programs(chosen: Config) -> int:
        if grad is None:
            return 1
        return int(n * h * triton.cdiv(classes, chosen["CLASSES"]) * triton.cdiv(w, chosen["LANES"]))

    launch(operator, finish, programs, arguments, key, _finish_heuristic)


def _programs(count: int) -> Callable[[Config], int]:
    return lambda _: count


def strides(name: str, x: Tensor | None, axes: str) -> dict[str, int]:
    return {f"{name}_{axis}": 0 if x is None else x.stride(i) for i, axis in enumerate(axes)}


def _pack_heuristic(**key: Any) -> Config:
    return {"LANES": 64, "num_warps": 4}


def _patches_heuristic(ROW_PIECES: int, COLUMN_PIECES: int, **key: Any) -> Config:
    """One warp: no barriers, and few labels in a program's pixels."""
    lanes = max(32, ROW_PIECES * COLUMN_PIECES)
    return {"LANES": max(512, lanes) if INTERPRETED else lanes, "num_warps": 1}


def _finish_heuristic(**key: Any) -> Config:
    return {"CLASSES": 32 if INTERPRETED else 4, "LANES": 64, "num_warps": 4}


def compile_cases() -> Iterator[CompileCase]:
    """FCN's strides; every option; grids that take the exact path only; the dtypes and layouts of scores."""
    plain: dict[str, Any] = {}
    everything = {"weighted": True, "dtype": torch.bfloat16, "layout": torch.channels_last, "label_smoothing": 0.1}
    with record() as cases:
        for stride, options in (
            (2, plain), (4, plain), (8, plain), (16, plain), (32, plain), (8, everything), (32, everything),
            (8, {"gradient": False}), (8, {**everything, "gradient": False}), (8, {"pixels": True}), (1, plain),
        ):  # fmt: skip
            _compile_case(stride, **options)
    yield from cases


def _compile_case(
    stride: int,
    weighted: bool = False,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
    label_smoothing: float = 0.0,
    gradient: bool = True,
    pixels: bool = False,
) -> None:
    size = (64 * stride, 64 * stride)
    x = torch.empty((8, 21, 64, 64), dtype=dtype, device="meta", memory_format=layout)
    target = torch.empty((8, *size), dtype=torch.uint8 if weighted else torch.int64, device="meta")
    weight = x.new_empty(21) if weighted else None
    pixel_weight = x.new_empty(target.shape) if weighted else None
    loss, grid = x.new_empty((), dtype=torch.float32), BilinearGrid.transposed(stride, stride // 2, size).as_ints()
    call = LossCall(x, target, weight, pixel_weight, 255, "mean", label_smoothing, "triton")
    if pixels:
        upsample_cross_entropy_pixels(call, grid, loss.new_empty(target.shape))
    else:
        written = (torch.empty_like(x, dtype=torch.float32), loss) if gradient else ()
        upsample_cross_entropy(call, grid, loss, *written)
