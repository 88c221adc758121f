"""Stored values of masks: image files, pages of stacks, and the arrays of ``.mat`` and ``.npy`` files."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...files import check_regular
from ..color_table import colors_in, read_colors
from ..files import pil_to_array
from ..labels import indices_in, read_indices, read_mat
from ..opening import Stack

LARGEST = 1 << 30
"""Values of an array; more are refused before memory is taken for them."""
USUAL_KEYS = ("segmentation", "labels", "label", "mask", "labelmap", "gt", "groundtruth", "inst_map")


@functools.lru_cache(maxsize=8)
def stack(path: Path) -> Stack:
    """The pages of an image file; those of a few files stay open. Raises ``DataError``."""
    return Stack(path, "image")


def page_pixels(path: Path, page: int) -> np.ndarray:
    """A page of an image stack, from 0, as ``read_image`` gives an image."""
    return pil_to_array(stack(path)[page], str(path))


def stored_values(path: Path, page: int | None = None, key: str | None = None) -> np.ndarray:
    """The integers ``[H, W]`` of a mask, of a stack of one page; ``key`` names the variable of a ``.mat`` file.

    Raises ``DataError``.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _npy(path)
    if suffix == ".mat":
        return read_mat(path, (key or _only_key(path)).split("."))
    return read_indices(path) if page is None else indices_in(stack(path)[page], path)


def stored_colors(path: Path, page: int | None = None) -> np.ndarray:
    """As ``read_colors``, of one page. Raises ``DataError``."""
    return read_colors(path) if page is None else colors_in(stack(path)[page])


def _npy(path: Path) -> np.ndarray:
    check_regular(path, "label map")
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, OverflowError) as error:
        raise DataError(f"{path}: cannot read label map: {' '.join(str(error).split())[:200]}") from None
    shape = values.shape
    if values.ndim == 3 and 1 in (shape[0], shape[2]):
        values = values[:, :, 0] if shape[2] == 1 else values[0]
    if values.ndim != 2 or not 0 < values.size <= LARGEST or values.dtype.kind not in "biuf":
        raise DataError(f"{path}: a label map must be numbers [H, W], got {values.dtype} of shape {list(shape)}")
    whole: np.ndarray = np.nan_to_num(values, nan=0.5, posinf=0.5, neginf=0.5).astype(np.int64)
    if not np.array_equal(whole, values):
        raise DataError(f"{path}: holds numbers that are not whole")
    return whole


def _only_key(path: Path) -> str:
    """The one array of numbers in a ``.mat`` file, in structures too. Raises ``DataError`` for none or several."""
    from scipy.io import loadmat

    check_regular(path, "label map")
    try:
        found = loadmat(path)
    except Exception as error:  # as in ``read_mat``
        raise DataError(f"{path}: cannot read label map: {error}") from None
    arrays = dict(_arrays({name: value for name, value in found.items() if not name.startswith("__")}, "", 3))
    usual = [name for name in arrays if name.rpartition(".")[2].lower() in USUAL_KEYS]
    names = usual if len(usual) == 1 else list(arrays)
    if len(names) != 1:
        several = ", ".join(f"{name} {list(arrays[name].shape)}" for name in names[:8])
        raise DataError(f"{path}: which array is the label map? {several or 'there is none'}; --key NAME says it")
    return names[0]


def _arrays(fields: dict[str, Any], above: str, depth: int) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in fields.items():
        if not isinstance(value, np.ndarray):
            continue
        if value.dtype.names and value.size == 1 and depth:
            inner = {field: value.flat[0][field] for field in value.dtype.names}
            yield from _arrays(inner, f"{above}{name}.", depth - 1)
        elif value.ndim == 2 and value.size > 1 and value.dtype.kind in "biuf":
            yield f"{above}{name}", value
