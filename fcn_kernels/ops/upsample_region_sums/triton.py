"""Launches the Triton kernels of upsample_region_sums."""

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
from ...patches import BORDER, cut
from ..upsample_cross_entropy.triton import finish_gradient, pack_scores, strides
from .triton_kernels import regions

# A lane's patch; its rows are gone through one by one. The interpreter's time goes by operations.
MOST_ROWS, MOST_COLUMNS = (2, 2) if INTERPRETED else (4, 4)
ROW_PIECES, COLUMN_PIECES = 4, 2  # at most, in lanes side by side

NAME = "upsample_region_sums"


def upsample_region_sums(
    x: Tensor, target: Tensor, grid: list[int], ignore_index: int, squared: bool, sums: Tensor
) -> None:
    """Writes ``sums`` ``[3, N, C]``."""
    _launch(x, target, sums, None, None, grid, ignore_index, squared)


def upsample_region_sums_backward(
    x: Tensor, target: Tensor, weights: Tensor, grid: list[int], ignore_index: int, squared: bool, grad: Tensor
) -> None:
    """Writes ``grad`` of ``x``, from ``weights`` ``[2, N, C]``: the incoming gradients of the first two sums."""
    _launch(x, target, None, weights, grad, grid, ignore_index, squared)


def _launch(
    x: Tensor,
    target: Tensor,
    sums: Tensor | None,
    weights: Tensor | None,
    grad: Tensor | None,
    grid: list[int],
    ignore_index: int,
    squared: bool,
) -> None:
    n, classes, h, w = x.shape
    rows, columns = cut(grid, 0, h, MOST_ROWS, ROW_PIECES), cut(grid, 1, w, MOST_COLUMNS, COLUMN_PIECES)
    pitch = w + 2 * BORDER.value
    plane = pitch * (h + 2 * BORDER.value)
    cells = rows.runs * columns.runs
    clamp = BORDERS[grid[8]] == "clamp"
    wide = is_wide(x, target, None) or rows.wide or columns.wide or max(plane, cells) >= 2**30
    packed = pack_scores(NAME, x, None, plane, pitch, {"CLAMP": clamp, "SMOOTH": False, "WIDE": wide})
    key: dict[str, Any] = {
        "dtype": "float32",
        "size": bucket(n * cells),
        "TARGET": str(target.dtype).removeprefix("torch."),
        "GRADIENT": grad is not None,
        "SQUARED": squared,
        "WIDE": wide,
        "ROWS": rows.run,
        "ROW_PIECES": rows.pieces,
        "SPARSE_ROWS": rows.sparse,
        "COLUMNS": columns.run,
        "COLUMN_PIECES": columns.pieces,
        "SPARSE_COLUMNS": columns.sparse,
    }
    lanes = config(NAME, "regions", _regions_heuristic, x.device, **key)["LANES"]
    blocks = triton.cdiv(cells, lanes // (rows.pieces * columns.pieces))
    partials = corners = None
    if grad is None:
        partials = x.new_empty((n, blocks, 3, classes), dtype=torch.float32)
    else:
        corners = x.new_empty(n * classes * 4 * cells, dtype=torch.float32)
    arguments = {
        "packed": packed, "target": target, "weights": weights, "sums": corners, "partials": partials, "images": n,
        "classes": classes, "h": h, "w": w, "cells": cells, "blocks": blocks, "plane": plane, "pitch": pitch,
        **strides("target", target, "nhw"), "ignore_index": ignore_index,
        **rows.arguments("rows"), **columns.arguments("columns"),
    }  # fmt: skip
    launch(NAME, regions, lambda _: n * blocks, arguments, key, _regions_heuristic)
    if sums is not None and partials is not None:
        torch.sum(partials, 1, out=sums.transpose(0, 1))
    elif grad is not None:
        finish_gradient(NAME, x, corners, grad, rows, columns, clamp, wide)


def _regions_heuristic(ROW_PIECES: int, COLUMN_PIECES: int, **key: Any) -> Config:
    """One warp: sums over lanes need no barriers."""
    lanes = max(32, ROW_PIECES * COLUMN_PIECES)
    return {"LANES": max(512, lanes) if INTERPRETED else lanes, "num_warps": 1}


def compile_cases() -> Iterator[CompileCase]:
    """FCN's strides; both passes; squares; a grid whose pixels are a cell apart."""
    with record() as cases:
        for stride, squared in ((8, False), (8, True), (32, False), (1, False)):
            size = (64 * stride, 64 * stride)
            x = torch.empty((8, 21, 64, 64), device="meta")
            target = torch.empty((8, *size), dtype=torch.int64, device="meta")
            grid = BilinearGrid.transposed(stride, stride // 2, size).as_ints()
            upsample_region_sums(x, target, grid, 255, squared, x.new_empty(3, 8, 21))
            upsample_region_sums_backward(x, target, x.new_empty(2, 8, 21), grid, 255, squared, torch.empty_like(x))
    yield from cases
