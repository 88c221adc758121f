"""Label maps: what the values in a file mean, and the files that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from .files import VOID, Opened, write_image
from .palette import Color

_UNKNOWN = -1


class Codes:
    """From the values stored in label files to classes: ``classes[value]``; ``void`` values become 255."""

    def __init__(self, classes: Mapping[int, int], void: Iterable[int] = (VOID,)) -> None:
        meaning = {**dict.fromkeys(void, VOID), **classes}
        self.classes, self.void = sorted(classes), sorted(set(meaning) - set(classes))
        self._lowest = min(meaning)
        self._table = np.full(max(meaning) - self._lowest + 1, _UNKNOWN, np.int16)
        for value, label in meaning.items():
            self._table[value - self._lowest] = label

    @classmethod
    def counted(cls, classes: int, first: int = 0, void: int = VOID) -> Codes:
        """``classes`` values in a row from ``first`` on."""
        return cls({first + label: label for label in range(classes)}, (void,))

    def decode(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels uint8 and a mask of the values that mean nothing (labeled void), of the shape of ``stored``."""
        index = stored.astype(np.int64) - self._lowest
        inside = (index >= 0) & (index < len(self._table))
        labels = np.where(inside, self._table[np.where(inside, index, 0)], _UNKNOWN)
        wrong = labels == _UNKNOWN
        return np.where(wrong, VOID, labels).astype(np.uint8), wrong

    def __call__(self, stored: np.ndarray, path: str | Path) -> np.ndarray:
        """Labels, uint8. Raises ``DataError`` with the value and the position of the first that means nothing."""
        labels, wrong = self.decode(stored)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(f"{path}: label {stored[row, column]} at row {row}, column {column}; wanted {self}")
        return labels

    def __str__(self) -> str:
        void = f", or {_ranges(self.void)} for void" if self.void else ""
        return f"{_ranges(self.classes)}{void}"


def _ranges(values: list[int]) -> str:
    """Ascending integers as text: ``0 to 10, 12``."""
    starts = [value for value in values if value - 1 not in values]
    ends = [value for value in values if value + 1 not in values]
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))


def read_indices(path: str | Path) -> np.ndarray:
    """The integers ``[H, W]`` stored in an image file; a palette is not applied. Raises ``DataError``."""
    with Opened(path, "label map") as image:
        if image.mode not in ("P", "L", "1", "I", "I;16", "I;16B"):
            raise DataError(f"{path}: a label map must hold class indices in one channel, got mode {image.mode}")
        return np.asarray(image)


def read_mat(path: str | Path, keys: Sequence[str]) -> np.ndarray:
    """The integers ``[H, W]`` in a MATLAB file (before version 7.3) under ``keys``: a variable, then fields within it.

    Raises ``DataError`` naming the file.
    """
    from scipy.io import loadmat

    try:
        found: Any = loadmat(path)
    except FileNotFoundError:
        raise DataError(f"{path}: label map not found") from None
    except Exception as error:  # scipy raises many types for damaged files
        raise DataError(f"{path}: cannot read label map: {error}") from None
    for depth, key in enumerate(keys):
        try:
            found = found[key] if depth == 0 else found.flat[0][key]
        except (KeyError, IndexError, ValueError):
            raise DataError(f"{path}: there is no {'.'.join(keys)} in this file") from None
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.size == 0 or found.dtype.kind not in "biuf":
        shape = getattr(found, "shape", type(found).__name__)
        raise DataError(f"{path}: {'.'.join(keys)} must be numbers [H, W], got {shape}")
    whole = np.nan_to_num(found, nan=0.5, posinf=0.5, neginf=0.5).astype(np.int64)
    if not np.array_equal(whole, found):
        raise DataError(f"{path}: {'.'.join(keys)} holds numbers that are not whole")
    return whole


def read_labels(path: str | Path, classes: int) -> np.ndarray:
    """Label map, uint8 ``[H, W]``: the stored indices, 255 = void.

    Raises ``DataError`` naming the file, and for a label out of range its value and position.
    """
    return Codes.counted(classes)(read_indices(path), path)


def read_palette(path: str | Path, classes: int) -> list[Color] | None:
    """The colors stored in a palette PNG; None where it has none."""
    with Opened(path, "label map") as image:
        flat = image.getpalette() if image.mode == "P" else None
    if flat is None or len(flat) < 3 * classes:
        return None
    return [(flat[3 * c], flat[3 * c + 1], flat[3 * c + 2]) for c in range(classes)]


def write_labels(path: str | Path, labels: np.ndarray, palette: Iterable[Color]) -> None:
    """uint8 ``[H, W]`` as a palette PNG: the indices are the labels, the colors are for the eye; void is white."""
    flat = [channel for color in palette for channel in color]
    flat += [0] * (3 * VOID - len(flat)) + [255, 255, 255]
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
    image.putpalette(flat)
    write_image(path, image)
