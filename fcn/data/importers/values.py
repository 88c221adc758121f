"""What the values in masks mean, where several masks must tell: indices, black and white, sparse grays, colors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError
from ..color_table import TABLES, ColorCodes, ColorTable, color_table, given_table, read_color_table
from ..files import VOID
from ..findings import LOSSY
from ..labels import Codes, read_palette
from ..meanings import are_colors, by_table, read_class_names
from ..palette import Color, voc_palette
from ..patterns import ARRAY_SUFFIXES
from .arrays import stored_colors, stored_values
from .form import Remarks
from .tree import Tree

MOST_GRAYS, MOST_COLORS = 32, 64
"""Of values without a table; more are not classes."""
DARK = 85
"""Where all other values are below it, 255 is void; else it is one of shades that are spread for the eye."""
CLEAR = 0.97
"""Part of a lossy mask's pixels that must be nearly black or white."""


class Mask(NamedTuple):
    """A file, the page of a stack (None: the file's one picture), and the variable of a ``.mat`` file."""

    path: Path
    page: int | None = None
    key: str | None = None

    def values(self) -> np.ndarray:
        """Integers ``[H, W]``. Raises ``DataError``."""
        return stored_values(self.path, self.page, self.key)

    def colors(self) -> np.ndarray:
        """As ``read_colors``. Raises ``DataError``."""
        return stored_colors(self.path, self.page)


class Meaning(NamedTuple):
    """Of the masks of one source; labels of a mask are ``codes(stored)`` of its colors or of its values."""

    classes: list[str]
    palette: list[Color]
    codes: Codes
    of_colors: bool = False
    black_or_white: bool = False

    def labels(self, mask: Mask) -> np.ndarray:
        """uint8 ``[H, W]``. Raises ``DataError``."""
        stored = mask.colors() if self.of_colors else mask.values()
        if self.black_or_white:
            return (stored >= 128).astype(np.uint8)
        return self.codes(stored, mask.path)


def find_meaning(tree: Tree, masks: Sequence[Mask], given: Mapping[str, Any], notes: Remarks) -> Meaning:
    """By the option ``given``, a table or names of the source, or the masks. Raises ``DataError``."""
    if given:
        table = given_table(given)
        return Meaning(table.classes, table.shown, *by_table(table))
    found = _table(tree)
    if found is not None:
        pictures = [mask.path for mask in masks if mask.page is None and mask.path.suffix.lower() not in ARRAY_SUFFIXES]
        if pictures and not are_colors(pictures, found):
            return _indices(masks, found.classes, found.shown)
        notes.add(f"{found.path}: masks are read by its values and colors")
        meaning = (ColorCodes(found), True) if pictures else by_table(found)
        return Meaning(found.classes, found.shown, *meaning)
    named = next((path for path in tree.with_suffix(".txt") if path.name == "classes.txt"), None)
    names, colors = read_class_names(named) if named is not None else (None, None)
    survey = _Survey(masks)
    if survey.of_colors:
        return _colors(survey, names, named, notes)
    return _grays(survey, masks, names, colors, notes)


def _table(tree: Tree) -> ColorTable | None:
    """Of the tables of the source, which must agree, the one nearest to its folder."""
    paths = [path for path in tree.with_suffix(".txt", ".csv") if path.name in TABLES]
    tables = [read_color_table(path) for path in sorted(paths, key=lambda path: (len(path.parts), path))]
    for other in tables[1:]:
        first = tables[0]
        if (other.classes, other.palette, other.void) != (first.classes, first.palette, first.void):
            raise DataError(f"{first.path} and {other.path} do not agree on classes and colors")
    return tables[0] if tables else None


class _Survey:
    """The values of all masks that can be read; ``of_colors`` where one of them holds colors."""

    def __init__(self, masks: Sequence[Mask]) -> None:
        self.values: set[int] = set()
        self.of_colors = False
        self.has_palette = _palette(masks, 1) is not None
        self.lossy = any(mask.path.suffix.lower() in LOSSY for mask in masks)
        self.clear, self.pixels = 0, 0
        self.first = masks[0].path
        for mask in masks:
            self._add(mask)
        if self.of_colors:
            self.values = set()
            for mask in masks:
                self._add_colors(mask)

    def _add(self, mask: Mask) -> None:
        try:
            stored = mask.values()
        except DataError:
            self.of_colors = self.of_colors or _is_picture(mask)
            return
        self.values |= set(np.unique(stored).tolist())
        self.clear += int(((stored < 64) | (stored > 191)).sum())
        self.pixels += stored.size
        if len(self.values) > 1 << 16:
            raise DataError(f"{mask.path}: more than {1 << 16} different values; this is no mask of classes")

    def _add_colors(self, mask: Mask) -> None:
        if _is_picture(mask):
            self.values |= set(np.unique(mask.colors()).tolist())
        if len(self.values) > MOST_COLORS:
            raise DataError(
                f"{mask.path}: more than {MOST_COLORS} different colors, and no table says what they mean: "
                "labelmap.txt, with a line NAME:RED,GREEN,BLUE for each class (if these are photographs, --data.images "
                "and --data.masks say which files are masks)"
            )


def _is_picture(mask: Mask) -> bool:
    if mask.path.suffix.lower() in ARRAY_SUFFIXES:
        return False
    try:
        mask.colors()
    except DataError:
        return False
    return True


def _colors(survey: _Survey, names: list[str] | None, named: Path | None, notes: Remarks) -> Meaning:
    """Classes called by their colors, black first."""
    colors = [(value >> 16, value >> 8 & 255, value & 255) for value in sorted(survey.values)]
    own = [f"color {','.join(map(str, color))}" for color in colors]
    if names is not None:
        raise DataError(
            f"{named}: names alone do not say which color is which; labelmap.txt does (NAME:RED,GREEN,BLUE)"
        )
    notes.add(
        f"{len(colors)} colors and no table: each is a class (--data.classes '{{NAME: [R, G, B], ...}}' names them)"
    )
    table = color_table(survey.first, list(zip(own, colors, strict=True)))
    codes, _ = by_table(table)
    return Meaning(table.classes, table.palette, codes, of_colors=True)


def _grays(
    survey: _Survey, masks: Sequence[Mask], names: list[str] | None, colors: list[Color] | None, notes: Remarks
) -> Meaning:
    values = sorted(survey.values)
    if not values:
        masks[0].values()  # says why it cannot be read
    two = names if names is not None and len(names) == 2 else ["background", "object"]
    if survey.lossy and len(values) > 2 and survey.clear >= CLEAR * survey.pixels and values[-1] > 191:
        notes.add("masks are compressed with loss; what is brighter than 127 is taken as the object", survey.first)
        return Meaning(two, colors or voc_palette(2), Codes.counted(2), black_or_white=True)
    if values[0] >= 0 and values[-1] == VOID and len(values) <= 2 and values[0] in (0, VOID):
        notes.add("masks of 0 and 255: 255 is taken as the object (--data.classes '{NAME: 0, void: 255}' if not)")
        return Meaning(two, colors or voc_palette(2), Codes({0: 0, VOID: 1}, ()))
    labels = [value for value in values if value != VOID]
    largest = labels[-1] if labels else 0
    if survey.has_palette and labels[0] >= 0 and largest < VOID and names is None:
        return _indices(masks, [f"class {label}" for label in range(largest + 1)], None)
    if names is not None and labels and labels[0] >= 0 and largest < len(names):
        return _indices(masks, names, colors)
    if labels and labels[0] == 0 and largest < 2 * len(labels) and largest < VOID:
        return _indices(masks, [f"class {label}" for label in range(largest + 1)], None)
    if len(values) > MOST_GRAYS:
        raise DataError(
            f"{survey.first}: masks hold {len(values)} different values from {values[0]} to {values[-1]}, and nothing "
            "says what they mean: --data.classes '{NAME: VALUE, ...}'; numbers of objects are no classes"
        )
    void = [VOID] if VOID in values and largest < DARK else []
    values = labels if void else values
    own = [f"value {value}" for value in values] if names is None or len(names) != len(values) else names
    notes.add(
        f"masks hold the values {', '.join(map(str, values))}: each is a class{', and 255 is void' if void else ''} "
        "(--data.classes '{NAME: VALUE, void: VALUE, ...}' if not)"
    )
    codes = Codes({value: label for label, value in enumerate(values)}, void)
    return Meaning(own, colors or voc_palette(len(own)), codes)


def _indices(masks: Sequence[Mask], names: list[str], colors: list[Color] | None) -> Meaning:
    """Indices, and 255 for void. Raises ``DataError`` for more classes than that leaves room for."""
    if len(names) > VOID:
        raise DataError(f"{masks[0].path}: {len(names)} classes; at most {VOID} are possible")
    palette = colors or _palette(masks, len(names)) or voc_palette(len(names))
    return Meaning(names, palette, Codes.counted(len(names)))


def _palette(masks: Sequence[Mask], classes: int) -> list[Color] | None:
    """That of the first mask that can be read."""
    for mask in masks:
        if mask.page is None and mask.path.suffix.lower() not in ARRAY_SUFFIXES:
            with suppress(DataError):
                return read_palette(mask.path, classes)
    return None
