"""Masks whose values or colors mean what a table beside them says: CVAT's ``labelmap.txt``, ``class_dict.csv``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from .files import VOID
from .labels import Codes
from .listing import read_names
from .opening import Opened, upright
from .palette import Color

VOID_NAMES = ("void", "ignore", "ignored", "unlabeled", "unlabelled")
"""Names in a table that are no classes."""


@dataclass(frozen=True)
class ColorTable:
    """Classes and their colors; ``void`` are colors of no class."""

    path: Path
    classes: list[str]
    palette: list[Color]
    void: list[Color]


def find_color_table(root: Path) -> ColorTable | None:
    """The table in a folder, if there is one. Raises ``DataError`` for one that cannot be read."""
    for name, read in (("labelmap.txt", _labelmap), ("class_dict.csv", _class_dict)):
        path = root / name
        if path.is_file():
            entries = [entry for number, line in read(path) if (entry := _entry(path, number, line))]
            seen: dict[Color, str] = {}
            for name, color in entries:
                if color in seen:
                    raise DataError(f"{path}: {seen[color]!r} and {name!r} have one color, {_text(color)}")
                seen[color] = name
            classes = [(name, color) for name, color in entries if name.lower() not in VOID_NAMES]
            if not classes:
                raise DataError(f"{path}: there is no class in this table")
            void = [color for name, color in entries if name.lower() in VOID_NAMES]
            return ColorTable(path, [name for name, _ in classes], [color for _, color in classes], void)
    return None


def _labelmap(path: Path) -> list[tuple[int, list[str]]]:
    """``name:red,green,blue:parts:actions``, CVAT's."""
    lines = enumerate(read_names(path), start=1)
    return [
        (number, [name, *color.split(":")[0].split(",")])
        for number, line in lines
        if not line.startswith("#")
        for name, _, color in [line.partition(":")]
    ]


def _class_dict(path: Path) -> list[tuple[int, list[str]]]:
    """A heading, then ``name,red,green,blue``."""
    return list(enumerate(csv.reader(read_names(path)), start=1))[1:]


def _entry(path: Path, number: int, fields: Sequence[str]) -> tuple[str, Color]:
    name, *values = (field.strip() for field in fields)
    if len(values) != 3 or not all(value.isdecimal() and int(value) <= 255 for value in values) or not name:
        raise DataError(
            f"{path}: line {number} must be a name and a color of three numbers from 0 to 255, got {fields}"
        )
    red, green, blue = map(int, values)
    return name, (red, green, blue)


class ColorCodes(Codes):
    """Colors, as ``read_colors`` gives them, to classes."""

    def __init__(self, table: ColorTable) -> None:
        colors = [*table.palette, *table.void]
        values = np.array([_code(color) for color in colors])
        meaning = np.array([*range(len(table.palette)), *[VOID] * len(table.void)])
        order = np.argsort(values)
        self._values, self._labels = values[order], meaning[order]
        self.classes = sorted(map(_code, table.palette))
        self.void = sorted(map(_code, table.void))
        self._table_path = table.path

    def decode(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = np.searchsorted(self._values, stored).clip(max=len(self._values) - 1)
        wrong = self._values[index] != stored
        return np.where(wrong, VOID, self._labels[index]).astype(np.uint8), wrong

    def shown(self, value: int) -> str:
        return f"color {_text((value >> 16, value >> 8 & 255, value & 255))}"

    def __str__(self) -> str:
        return f"a color of {self._table_path}"


def read_colors(path: str | Path) -> np.ndarray:
    """Colors ``[H, W]`` of an image file, a palette applied: ``red * 65536 + green * 256 + blue``."""
    with Opened(path, "label map") as image:
        channels = np.asarray(upright(image).convert("RGB")).astype(np.int32)
    return np.asarray(channels[:, :, 0] << 16 | channels[:, :, 1] << 8 | channels[:, :, 2])


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _text(color: Color) -> str:
    return ",".join(map(str, color))
