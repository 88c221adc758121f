"""Launches the Triton kernels of upsample_cross_entropy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from ...backend import INTERPRETED
from ...configs import Config, bucket, config
from ...grid import BORDERS, BilinearGrid
from ...launch import CompileCase, is_wide, launch, record
from ...patches import BORDER, Axis, cut
from .triton_kernels import finish, pack, patches

# True makes every program take the exact path (one exponential per pixel and class): for tests and benchmarks.
force_exact = False

# A lane's patch: its pixels' sums and labels stay in registers. The interpreter's time goes by operations, not by lanes.
MOST_ROWS, MOST_COLUMNS = (2, 2) if INTERPRETED else (4, 8)
MOST_PIECES = 8, 4


def upsample_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    loss: Tensor,
    scale: Tensor,
    grad: Tensor | None,
) -> None:
    """Writes ``loss``, ``scale`` (the factor that ``grad`` lacks) and ``grad`` (of the sum over pixels) unless None."""
    _launch(x, target, weight, pixel_weight, grid, ignore_index, label_smoothing, None, (loss, scale, grad, reduction))


def upsample_cross_entropy_pixels(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    label_smoothing: float,
    loss: Tensor,
) -> None:
    """Writes ``loss``, one for each pixel."""
    _launch(x, target, weight, pixel_weight, grid, ignore_index, label_smoothing, loss, None)


def _launch(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None,
    pixel_weight: Tensor | None,
    grid: list[int],
    ignore_index: int,
    label_smoothing: float,
    pixel_loss: Tensor | None,
    reduced: tuple[Tensor, Tensor, Tensor | None, str] | None,
) -> None:
    grad = reduced[2] if reduced else None
    if target.numel() == 0:
        if reduced:
            reduced[0].zero_()
            reduced[1].fill_(0.0 if reduced[3] == "mean" else 1.0)
        if grad is not None:
            grad.zero_()
        return
    n, classes, h, w = x.shape
    rows, columns = cut(grid, 0, h, MOST_ROWS, MOST_PIECES[0]), cut(grid, 1, w, MOST_COLUMNS, MOST_PIECES[1])
    clamp = BORDERS[grid[8]] == "clamp"
    smooth = label_smoothing > 0
    weight = None if weight is None else weight.detach().to(torch.float32).contiguous()
    pitch = w + 2 * BORDER.value
    plane = pitch * (h + 2 * BORDER.value)
    cells = rows.runs * columns.runs
    wide = is_wide(x, target, pixel_weight) or rows.wide or columns.wide or max(plane, cells, target[0].numel()) >= 2**30
    dtype = str(x.dtype).removeprefix("torch.")
    packed = x.new_empty(n * (classes + 2) * plane, dtype=torch.float32)

    key: dict[str, Any] = {
        "dtype": dtype,
        "size": bucket(packed.numel()),
        "CHANNELS_LAST": x.stride(1) == 1,
        "CLAMP": clamp,
        "SMOOTH": smooth,
        "WIDE": wide,
        "CLASSES": min(32, triton.next_power_of_2(classes)),
    }
    lanes = config("upsample_cross_entropy", "pack", _pack_heuristic, x.device, **key)["LANES"]
    blocks = triton.cdiv(plane, lanes)
    launch(
        "upsample_cross_entropy", pack, lambda _, programs=n * blocks: programs,
        {
            "x": x, "weight": weight, "packed": packed, "classes": classes, "h": h, "w": w, "blocks": blocks,
            "plane": plane, "pitch": pitch, **_strides("x", x, "nchw"),
        },
        key, _pack_heuristic,
    )  # fmt: skip

    runs = {
        "ROWS": rows.run, "ROW_PIECES": rows.pieces, "SPARSE_ROWS": rows.sparse,
        "COLUMNS": columns.run, "COLUMN_PIECES": columns.pieces, "SPARSE_COLUMNS": columns.sparse,
    }  # fmt: skip
    key = {
        "dtype": "float32",
        "size": bucket(n * cells),
        "TARGET": str(target.dtype).removeprefix("torch."),
        "WEIGHTS": (weight is not None) + 2 * (pixel_weight is not None),
        # Ratios between pixels more than half a cell apart may overflow, and there is nothing to gain from them.
        "GEOMETRIC": not force_exact and rows.slope <= 0.5 and columns.slope <= 0.5,
        "GRADIENT": grad is not None,
        "PIXELS": pixel_loss is not None,
        "SMOOTH": smooth,
        "WIDE": wide,
        **runs,
    }
    lanes = config("upsample_cross_entropy", "patches", _patches_heuristic, x.device, **key)["LANES"]
    blocks = triton.cdiv(cells, lanes // (rows.pieces * columns.pieces))
    sums = None if grad is None else x.new_empty(n * classes * 4 * cells, dtype=torch.float32)
    partials = x.new_empty((n * blocks, 2), dtype=torch.float32) if reduced else None
    launch(
        "upsample_cross_entropy", patches, lambda _, programs=n * blocks: programs,
        {
            "packed": packed, "target": target, "weight": weight,
            "weight_total": weight.sum() if smooth and weight is not None else None,
            "pixel_weight": pixel_weight, "sums": sums, "partials": partials, "pixel_loss": pixel_loss,
            "classes": classes, "h": h, "w": w, "cells": cells, "blocks": blocks, "plane": plane, "pitch": pitch,
            **_strides("target", target, "nhw"), **_strides("pixel_weight", pixel_weight, "nhw"),
            "ignore_index": ignore_index, "hard": 1 - label_smoothing, "smoothing": label_smoothing / classes,
            **rows.arguments("rows"), **columns.arguments("columns"),
        },
        key, _patches_heuristic,
    )  # fmt: skip
    if reduced:
        _finish(x, rows, columns, sums, partials, *reduced, clamp, wide)


def _finish(
    x: Tensor,
    rows: Axis,
    columns: Axis,
    sums: Tensor | None,
    partials: Tensor,
    loss: Tensor,
    scale: Tensor,
    grad: Tensor | None,
    reduction: str,
    clamp: bool,
    wide: bool,
) -> None:
    n, classes, h, w = x.shape
    key = {
        "dtype": "float32",
        "size": bucket(x.numel()),
        "GRADIENT": grad is not None,
        "MEAN": reduction == "mean",
        "CLAMP": clamp,
        "SPARSE_ROWS": rows.sparse,
        "SPARSE_COLUMNS": columns.sparse,
        "WIDE": wide,
    }
    unused = {"least", "reach"}
    axes = {**rows.arguments("rows"), **columns.arguments("columns")}

    def programs(constants: dict[str, Any]) -> int:
        if grad is None:
            return 1
        return n * h * triton.cdiv(classes, constants["CLASSES"]) * triton.cdiv(w, constants["LANES"])

    launch(
        "upsample_cross_entropy", finish, programs,
        {
            "sums": sums, "partials": partials, "grad": grad, "loss": loss, "scale": scale, "classes": classes,
            "h": h, "w": w, "cells": rows.runs * columns.runs, "count": len(partials), **_strides("grad", grad, "nchw"),
            **{name: value for name, value in axes.items() if name in finish.arg_names},
        },
        key, _finish_heuristic,
    )  # fmt: skip


def _strides(name: str, x: Tensor | None, axes: str) -> dict[str, int]:
    return {f"{name}_{axis}": 0 if x is None else x.stride(i) for i, axis in enumerate(axes)}


def _pack_heuristic(**key: Any) -> Config:
    return {"LANES": 64, "num_warps": 4}


def _patches_heuristic(ROW_PIECES: int, COLUMN_PIECES: int, **key: Any) -> Config:  # noqa: N803
    """One warp: no barriers, and few labels in a program's pixels."""
    lanes = max(32, ROW_PIECES * COLUMN_PIECES)
    return {"LANES": max(512, lanes) if INTERPRETED else lanes, "num_warps": 1}


def _finish_heuristic(**key: Any) -> Config:
    return {"CLASSES": 32 if INTERPRETED else 8, "LANES": 64, "num_warps": 4}


def compile_cases() -> Iterator[CompileCase]:
    """FCN's strides, with and without options."""
    with record() as cases:
        for stride in (4, 8, 16, 32):
            x = torch.empty((2, 21, 64, 64), device="meta")
            target = torch.empty((2, 64 * stride, 64 * stride), dtype=torch.int64, device="meta")
            grid = BilinearGrid.interpolate((64, 64), (64 * stride, 64 * stride)).as_ints()
            scalar = torch.empty((), device="meta")
            upsample_cross_entropy(x, target, None, None, grid, 255, "mean", 0.0, scalar, scalar, x)
    yield from cases
