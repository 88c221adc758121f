"""Checks of arguments shared by the operators. Messages say operator, argument, what was given and what is wanted."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from .backend import DTYPES
from .grid import LIMIT, BilinearGrid, is_whole


def names_of(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def check_scores(operator: str, argument: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{operator}: {argument} must be a Tensor, got {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise TypeError(f"{operator}: {argument} must be one of {names_of(DTYPES)}, got {x.dtype}")
    shape = x.shape
    if len(shape) != 4:
        raise ValueError(f"{operator}: {argument} must be [N, C, H, W], got shape {tuple(shape)}")
    if shape[1] == 0 or shape[2] == 0 or shape[3] == 0:
        raise ValueError(f"{operator}: {argument} must have C, H, W of at least 1, got shape {tuple(shape)}")


def check_same(operator: str, argument: str, given: Tensor, other: str, x: Tensor, *, dtype: bool) -> None:
    """``given`` lives on the device of ``x`` and, if ``dtype``, has its dtype."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{operator}: {argument} must be a Tensor, got {type(given).__name__}")
    if given.device != x.device:
        raise ValueError(
            f"{operator}: {argument} is on {given.device} and {other} on {x.device}; put them on one device"
        )
    if dtype and given.dtype != x.dtype:
        raise TypeError(f"{operator}: {argument} must have the dtype of {other}, {x.dtype}; got {given.dtype}")


def check_pair(operator: str, argument: str, value: int | tuple[int, int], least: int) -> tuple[int, int]:
    """``value`` for (rows, columns), each at least ``least``."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if not all(map(is_whole, pair)):
        raise TypeError(f"{operator}: {argument} must be a whole number or two, got {value!r}")
    if len(pair) != 2 or pair[0] < least or pair[1] < least:
        raise ValueError(f"{operator}: {argument} must be a number of at least {least}, or two, got {value}")
    return pair[0], pair[1]


def check_number(operator: str, argument: str, value: int, least: int) -> None:
    if not is_whole(value):
        raise TypeError(f"{operator}: {argument} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{operator}: {argument} must be at least {least}, got {value}")


def check_size(operator: str, argument: str, size: tuple[int, int]) -> tuple[int, int]:
    """``size`` as (height, width)."""
    if not isinstance(size, (tuple, list)) or len(size) != 2 or not all(map(is_whole, size)):
        error = ValueError if isinstance(size, (tuple, list)) and all(map(is_whole, size)) else TypeError
        raise error(f"{operator}: {argument} must be (height, width), got {size!r}")
    return size[0], size[1]


def check_skip(operator: str, skip: Tensor, x: Tensor, size: tuple[int, int] | None) -> None:
    """``skip`` can be added to what an operator makes of ``x``, and is of ``size`` where that is given."""
    check_same(operator, "skip", skip, "x", x, dtype=True)
    shape, wanted = skip.shape, x.shape
    if len(shape) != 4 or shape[0] != wanted[0] or shape[1] != wanted[1]:
        raise ValueError(f"{operator}: skip must be [N, C, H, W] with N, C = {tuple(wanted[:2])}, got {tuple(shape)}")
    if size is not None and check_size(operator, "size", size) != (shape[2], shape[3]):
        raise ValueError(f"{operator}: size is {tuple(size)} and skip has {tuple(shape[2:])}")


def output_grid(
    operator: str,
    x: Tensor,
    grid: BilinearGrid | None,
    size: tuple[int, int] | None,
    source: str,
    scale_factor: float | tuple[float, float] | None = None,
    align_corners: bool = False,
) -> BilinearGrid:
    """``grid`` itself, or the sampling of ``F.interpolate`` by ``scale_factor``, either checked against ``size``; or
    the sampling of ``F.interpolate`` to ``size``."""
    if grid is not None and (scale_factor is not None or align_corners):
        raise ValueError(f"{operator}: grid says where pixels sample; give it alone, or scale_factor and align_corners")
    given = "grid" if scale_factor is None else "scale_factor"
    if scale_factor is not None:
        try:
            grid = BilinearGrid.interpolate((x.shape[2], x.shape[3]), None, align_corners, scale_factor=scale_factor)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("BilinearGrid.interpolate", operator)) from None
    if size is not None:
        size = check_size(operator, "size", size)
    if grid is None:
        if size is None:
            raise ValueError(f"{operator}: give one of {source}, or nothing says how large the output is")
        return BilinearGrid.interpolate((x.shape[2], x.shape[3]), size, align_corners)
    if not isinstance(grid, BilinearGrid):
        raise TypeError(f"{operator}: grid must be a BilinearGrid, got {type(grid).__name__}")
    if size is not None and (grid.size[0] != size[0] or grid.size[1] != size[1]):
        raise ValueError(f"{operator}: {given} makes {tuple(grid.size)} pixels, and {source} wants {tuple(size)}")
    made_for = grid.input_size
    if made_for is not None and (made_for[0] != x.shape[2] or made_for[1] != x.shape[3]):
        raise ValueError(
            f"{operator}: grid was made for scores of {tuple(made_for)} pixels, and these have {tuple(x.shape[2:])}"
        )
    for denominator, pixels in zip(grid.denominator, x.shape[2:], strict=True):
        if denominator >= 2**31 and denominator * (pixels + 4) >= LIMIT:
            raise ValueError(f"{operator}: grid's denominator {denominator} times {pixels} pixels must stay below 2^62")
    return grid


def check_target(target: Tensor, classes: int, ignore_index: int = -100) -> None:
    """Raise ``ValueError`` naming the first label that is neither in ``[0, classes)`` nor ``ignore_index``.

    ``target`` is an integer tensor of any shape on any device. Reads the result back, so it synchronises with a GPU:
    for debugging a loss that became NaN there (on a CPU the losses check by themselves).
    """
    if not isinstance(target, Tensor):
        raise TypeError(f"check_target: target must be a Tensor, got {type(target).__name__}")
    label = target.long()
    bad = ((label < 0) | (label >= classes)) & (label != ignore_index)
    if bad.any():
        raise_bad_label("check_target", target, int(bad.flatten().int().argmax()), classes, ignore_index)


def raise_bad_label(operator: str, target: Tensor, pixel: int, classes: int, ignore_index: int) -> NoReturn:
    """``pixel`` is the index of the offending label in ``target`` counted in order, whatever the strides."""
    position = []
    for size in reversed(target.shape):
        position.append(pixel % size)
        pixel //= size
    position.reverse()
    raise ValueError(
        f"{operator}: target{position} is {int(target[tuple(position)])}; labels must lie in [0, {classes}) "
        f"or be ignore_index = {ignore_index}"
    )
