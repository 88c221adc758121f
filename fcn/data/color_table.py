"""Masks whose values or colors mean what a table says: CVAT's ``labelmap.txt``, ``class_dict.csv``, ``classes.csv``,
Roboflow's ``_classes.csv``, or an option."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from .files import VOID
from .labels import Codes
from .listing import read_names
from .opening import Opened, upright
from .palette import Color, voc_palette

VOID_NAMES = ("void", "ignore", "ignored", "unlabeled", "unlabelled")
"""Names in a table that are no classes."""


@dataclass(frozen=True)
class ColorTable:
    """Classes and the colors that stand for them; ``void`` are colors of no class."""

    path: Path | str
    classes: list[str]
    palette: list[Color]
    void: list[Color]

    @property
    def shown(self) -> list[Color]:
        """Colors for the eye: those of the table, or the VOC color map where it holds gray values alone."""
        gray = all(len(set(color)) == 1 for color in self.palette)
        return voc_palette(len(self.palette)) if gray else self.palette


def find_color_table(root: Path) -> ColorTable | None:
    """The table in a folder, if there is one. Raises ``DataError`` for one that cannot be read."""
    path = next((root / name for name in TABLES if (root / name).is_file()), None)
    return None if path is None else read_color_table(path)


def read_color_table(path: Path) -> ColorTable:
    """Raises ``DataError``."""
    read = TABLES[path.name]
    return color_table(path, [_entry(path, number, line) for number, line in read(path)])


def color_table(path: Path | str, entries: Sequence[tuple[str, Color]]) -> ColorTable:
    """From names and colors; ``path`` is for messages. Raises ``DataError``."""
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


def given_table(classes: Mapping[str, Any]) -> ColorTable:
    """From an option: a gray value or ``[red, green, blue]`` by the name of a class. Raises ``DataError``."""
    entries = []
    for name, given in classes.items():
        values = [given] * 3 if isinstance(given, int) else given
        if len(values) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in values):
            raise DataError(
                f"data.classes: {name} must be a value from 0 to 255 or a color, [red, green, blue], got {given}"
            )
        entries.append((name, (values[0], values[1], values[2])))
    return color_table("data.classes", entries)


def _labelmap(path: Path) -> list[tuple[int, list[str]]]:
    """``name:red,green,blue:parts:actions``, CVAT's."""
    lines = enumerate(read_names(path), start=1)
    return [
        (number, [name, *color.split(":")[0].split(",")])
        for number, line in lines
        if not line.startswith("#")
        for name, _, color in [line.partition(":")]
    ]


def _csv(path: Path) -> list[tuple[int, list[str]]]:
    """A heading, then ``name,red,green,blue`` or, where the heading says so, other columns: a value in place of a
    color."""
    (_, heading), *lines = enumerate(csv.reader(read_names(path), skipinitialspace=True), start=1)
    columns = {title.strip().lower(): index for index, title in enumerate(heading)}
    name = _column(columns, "name", "class", "class_name", "class name", "label", "classes")
    colors = [_column(columns, *titles) for titles in (("r", "red"), ("g", "green"), ("b", "blue"))]
    value = _column(columns, "pixel value", "value", "pixel", "id", "index")
    wanted = colors if None not in colors else [value] * 3
    if name is None or None in wanted:
        name, wanted = 0, [1, 2, 3]
    chosen = [name, *(index for index in wanted if index is not None)]
    return [(number, [line[index] for index in chosen] if len(line) > max(chosen) else line) for number, line in lines]


def _column(columns: Mapping[str, int], *titles: str) -> int | None:
    return next((columns[title] for title in titles if title in columns), None)


TABLES = {"labelmap.txt": _labelmap, "class_dict.csv": _csv, "classes.csv": _csv, "_classes.csv": _csv}


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
        return colors_in(image)


def colors_in(image: Image.Image) -> np.ndarray:
    """As ``read_colors``, of an image that is open."""
    channels = np.asarray(upright(image).convert("RGB")).astype(np.int32)
    return np.asarray(channels[:, :, 0] << 16 | channels[:, :, 1] << 8 | channels[:, :, 2])


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _text(color: Color) -> str:
    return ",".join(map(str, color))
