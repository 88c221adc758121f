"""What the values of masks mean: as an option says, a table, names, or else the masks themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .color_table import ColorCodes, ColorTable, find_color_table, given_table, read_colors
from .dataset import FileDataset
from .files import VOID
from .labels import Codes, read_indices, read_labels, read_palette
from .listing import Pair, read_names
from .palette import Color, voc_palette


def file_dataset(
    pairs: Sequence[Pair],
    root: Path,
    all_masks: Iterable[Path],
    notes: Sequence[str] = (),
    classes: Mapping[str, Any] | None = None,
) -> FileDataset:
    """Classes as the option ``classes`` says, else the files of ``root``, else ``all_masks`` (those of all splits)."""
    if classes:
        table = given_table(classes)
        codes, of_colors = by_table(table)
        read = read_colors if of_colors else read_indices
        return FileDataset(
            pairs, table.classes, table.shown, codes, read, notes=list(notes), classes_from="data.classes"
        )
    found = find_color_table(root)
    names_file = root / "classes.txt"
    names, colors = read_class_names(names_file) if names_file.is_file() else (None, None)
    if found is not None and are_colors((mask for _, mask in pairs), found):
        if names is not None and names != found.classes:
            raise DataError(f"{found.path}: its classes are not those of {names_file}, and masks are of its colors")
        note = f"{found.path}: masks are read by its values and colors"
        codes = ColorCodes(found)
        return FileDataset(
            pairs, found.classes, found.shown, codes, read_colors, notes=[*notes, note], classes_from=str(found.path)
        )
    source = str(names_file)
    if names is None:
        names, source = (found.classes, str(found.path)) if found else (_classes_in_masks(all_masks), "masks")
    palette = colors or read_palette(pairs[0][1], len(names)) or voc_palette(len(names))
    return FileDataset(pairs, names, palette, notes=list(notes), classes_from=source)


def read_class_names(path: Path) -> tuple[list[str], list[Color] | None]:
    """Lines of ``classes.txt``: a name, or a name and its color (``road #804080``). Colors are None unless all have
    one. Raises ``DataError``."""
    names, colors = [], []
    for line in read_names(path):
        match = re.fullmatch(r"(.*\S)\s+#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", line)
        names.append(line if match is None else match[1])
        if match is not None:
            colors.append((int(match[2], 16), int(match[3], 16), int(match[4], 16)))
    return names, colors if len(colors) == len(names) else None


def by_table(table: ColorTable) -> tuple[Codes, bool]:
    """What masks mean by a table, and whether it is their colors; of gray values alone it is the numbers stored."""
    if all(len(set(color)) == 1 for color in (*table.palette, *table.void)):
        meaning = {color[0]: label for label, color in enumerate(table.palette)}
        return Codes(meaning, [color[0] for color in table.void]), False
    return ColorCodes(table), True


def are_colors(masks: Iterable[Path], table: ColorTable) -> bool:
    """Whether the first masks hold values of the table, rather than indices of its classes."""
    codes = ColorCodes(table)
    for mask, _ in zip(masks, range(8), strict=False):
        try:
            indices = np.unique(read_indices(mask))
        except DataError:
            return True  # colors, or not readable in either way
        _, wrong = codes.decode(read_colors(mask))
        if not wrong.any() and indices.max() > 0:
            return True
        if wrong.any() and set(indices.tolist()) <= {*range(len(table.classes)), VOID}:
            return False
    return True


def _classes_in_masks(masks: Iterable[Path]) -> list[str]:
    """Names for classes 0 to the largest label in the masks of all splits, so that all splits agree."""
    largest = 0
    for path in masks:
        labels = read_labels(path, VOID)
        largest = max(largest, int(np.max(labels, where=labels != VOID, initial=0)))
    return [f"class {index}" for index in range(largest + 1)]
