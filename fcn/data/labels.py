"""Label maps: what the values in a file mean, and the files that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import check_regular
from .files import VOID, write_image
from .opening import Opened, open_lazily, rawmode, upright
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
            value = self.shown(stored[row, column])
            raise DataError(f"{path}: label {value} at row {row}, column {column}; wanted {self}")
        return labels

    def shown(self, value: int) -> str:
        """A stored value as text."""
        return str(value)

    def __str__(self) -> str:
        void = f", or {_ranges(self.void)} for void" if self.void else ""
        return f"{_ranges(self.classes)}{void}"


def _ranges(values: list[int]) -> str:
    """Ascending integers as text: ``0 to 10, 12``."""
    starts = [value for value in values if value - 1 not in values]
    ends = [value for value in values if value + 1 not in values]
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))


def read_indices(path: str | Path) -> np.ndarray:
    """The integers ``[H, W]`` stored in an image file; a palette is not applied.

    Gray values of 1, 2 and 4 bits are those of the file, three equal channels are one, float values must be whole.
    Raises ``DataError``.
    """
    opened = Opened(path, "label map")
    with opened as image:
        return indices_in(image, path, opened.rawmode)


def indices_in(image: Image.Image, path: str | Path, stored_as: str = "") -> np.ndarray:
    """As ``read_indices``, of an image that is open; ``stored_as``: the ``rawmode`` of its file."""
    stored = np.asarray(upright(image))
    if image.mode in ("P", "L", "1", "I", "I;16", "I;16B", "I;16L", "I;16N"):
        return stored // _GRAY_STEPS[stored_as] if stored_as in _GRAY_STEPS else stored
    if image.mode == "F" and np.array_equal(stored, np.rint(stored)) and abs(stored).max() < 1 << 31:
        return stored.astype(np.int64)
    if image.mode in ("LA", "RGB", "RGBA"):
        channels = np.moveaxis(stored, 2, 0)
        count = 3 if image.mode.startswith("RGB") else 1  # alpha is no label, and must not hide any
        if (channels[:count] == channels[0]).all() and (channels[count:] == channels.flat[-1]).all():
            return np.ascontiguousarray(channels[0])
    raise DataError(
        f"{path}: a label map must hold class indices in one channel, got mode {image.mode}; colors need a table "
        "beside the folders of images and masks: labelmap.txt, with a line NAME:RED,GREEN,BLUE for each class"
    )


def few_bits(path: Path) -> str | None:
    """What is read of a gray label map of 2 or 4 bits, which other programs read otherwise. Raises ``DataError``."""
    with open_lazily(path, "label map") as image:
        step = _GRAY_STEPS.get(rawmode(image))
    if step is None:
        return None
    return (
        f"{path}: gray values of {2 if step == 85 else 4} bits, read as stored (0, 1, 2 ...), where most programs read "
        f"0, {step}, {2 * step} ...; save masks with 8 bits, so that all agree"
    )


_GRAY_STEPS = {"L;2": 85, "L;4": 17}
"""By which Pillow spreads gray values of few bits over 0 to 255."""


def read_mat(path: str | Path, keys: Sequence[str]) -> np.ndarray:
    """The integers ``[H, W]`` in a MATLAB file (before version 7.3) under ``keys``: a variable, then fields within it.

    Raises ``DataError`` naming the file.
    """
    from scipy.io import loadmat

    check_regular(Path(path), "label map")
    try:
        found: Any = loadmat(path)
    except FileNotFoundError:
        raise DataError(f"{path}: label map not found") from None
    except Exception as error:  # scipy raises many types for damaged files, NotImplementedError for version 7.3
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
    """``labels_image`` as a PNG."""
    write_image(path, labels_image(labels, palette))


def labels_image(labels: np.ndarray, palette: Iterable[Color]) -> Image.Image:
    """Integers ``[H, W]`` as a palette image: the indices are the labels, the colors are for the eye; void is white.

    Of more than 256 classes, whose labels do not fit a palette, a gray image of 16 bits.
    """
    colors = list(palette)
    if len(colors) > VOID + 1:
        return Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint16))
    flat = [channel for color in colors for channel in color]
    flat += [0] * (3 * VOID - len(flat)) + [255, 255, 255] * (len(colors) <= VOID)
    image = Image.fromarray(np.ascontiguousarray(labels, dtype=np.uint8))
    image.putpalette(flat)
    return image
