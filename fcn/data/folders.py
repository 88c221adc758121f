"""Any folder of images and masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError, MissingSplitError
from .color_table import ColorCodes, ColorTable, find_color_table, read_colors
from .dataset import FileDataset
from .files import VOID
from .labels import read_indices, read_labels, read_palette
from .listing import Pair, files_in, folder_of, read_names
from .pairing import pair_up
from .palette import voc_palette

SPLITS = ("train", "val", "test")
OTHER_NAMES = {"train": ("training",), "val": ("valid", "validation"), "test": ("testing",)}
"""What tools call the splits."""


def folder(root: Path, split: str, images: str = "images", masks: str = "masks") -> FileDataset:
    """Your own: folders of images and masks (class indices, or colors with a table).

    Files of one stem belong together, or stems with something that all masks have in common (``a.png``,
    ``a_mask.png``). The first of these layouts that exists is used:

    1. ``<root>/<split>/<images>`` and ``<root>/<split>/<masks>``;
    2. ``<root>/<images>/<split>`` and ``<root>/<masks>/<split>``;
    3. ``<root>/<images>``, ``<root>/<masks>`` and ``<root>/<split>.txt``, in each line a stem, a file's name, or an
       image and its mask;
    4. ``<root>/<images>`` and ``<root>/<masks>`` alone: by name, the first 80 % are ``train``, then 10 % ``val``, 10 %
       ``test`` (blocks, since neighboring names are often neighboring frames).

    ``valid`` and ``validation`` serve as ``val``, ``training`` as ``train``, ``testing`` as ``test``.

    Classes: ``<root>/labelmap.txt`` (a line ``name:red,green,blue`` for each; gray value v is ``v,v,v``; a class called
    ``void`` or ``ignore`` is void) or ``<root>/class_dict.csv`` for masks of colors or of any gray values;
    ``<root>/classes.txt``, one name a line, for indices; without them, the largest label in the masks of the whole
    folder says how many there are. Colors: those of the table, the palette of the first mask, or the VOC color map.

    ``notes`` of the result say what was understood beyond equal names and indices.
    """
    for name in (split, *OTHER_NAMES.get(split, ())):
        found = _find(root, name, images, masks)
        if found is not None:
            pairs, mask_folders, notes = found
            if name != split:
                notes.insert(0, f"{root}: '{name}' is taken as the split {split}")
            return file_dataset(pairs, root, mask_folders, notes)
    raise MissingSplitError(
        f"{root}: split '{split}' not found; wanted {split}/{images}, {images}/{split}, or {images} with {split}.txt"
    )


def _find(root: Path, split: str, images: str, masks: str) -> tuple[list[Pair], list[Path], list[str]] | None:
    """Pairs, folders of masks of all splits, and notes; None where there is no such split."""
    if (root / split / images).is_dir():
        pairs, notes = pair_up(root / split / images, folder_of(root / split / masks))
        return pairs, sorted(root.glob(f"*/{masks}")), notes
    if (root / images / split).is_dir():
        pairs, notes = pair_up(root / images / split, folder_of(root / masks / split))
        return pairs, sorted(path for path in (root / masks).iterdir() if path.is_dir()), notes
    if (root / f"{split}.txt").is_file():
        pairs, notes = pair_up(root / images, root / masks, read_names(root / f"{split}.txt"))
        return pairs, [root / masks], notes
    known = {*SPLITS, *(other for others in OTHER_NAMES.values() for other in others)}
    divided = any((root / f"{name}.txt").exists() or (root / images / name).is_dir() for name in known)
    if (root / images).is_dir() and split in SPLITS and not divided:
        everything, notes = pair_up(root / images, root / masks)
        first, last = {"train": (0, 8), "val": (8, 9), "test": (9, 10)}[split]
        pairs = everything[len(everything) * first // 10 : len(everything) * last // 10]
        if not pairs:
            raise DataError(f"{root}: {len(everything)} images are too few to divide; split '{split}' would be empty")
        return pairs, [root / masks], notes
    return None


def file_dataset(
    pairs: Sequence[Pair], root: Path, mask_folders: Iterable[Path], notes: Sequence[str] = ()
) -> FileDataset:
    """Classes as the files of ``root`` say, else as the masks do."""
    table = find_color_table(root)
    names_file = root / "classes.txt"
    names = read_names(names_file) if names_file.is_file() else None
    if table is not None and _are_colors(pairs, table):
        if names is not None and names != table.classes:
            raise DataError(f"{table.path}: its classes are not those of {names_file}, and masks are of its colors")
        note = f"{table.path}: masks are read by its values and colors"
        codes = ColorCodes(table)
        return FileDataset(
            pairs, table.classes, table.palette, codes, read_colors, notes=[*notes, note], classes_from=str(table.path)
        )
    source = str(names_file)
    if names is None:
        names, source = (table.classes, str(table.path)) if table else (_classes_in_masks(mask_folders), "masks")
    palette = read_palette(pairs[0][1], len(names)) or voc_palette(len(names))
    return FileDataset(pairs, names, palette, notes=list(notes), classes_from=source)


def _are_colors(pairs: Sequence[Pair], table: ColorTable) -> bool:
    """Whether the first masks hold values of the table, rather than indices of its classes."""
    codes = ColorCodes(table)
    for _, mask in pairs[:8]:
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


def _classes_in_masks(mask_folders: Iterable[Path]) -> list[str]:
    """Names for classes 0 to the largest label in the masks of all splits, so that all splits agree."""
    largest = 0
    for path in _masks(mask_folders):
        labels = read_labels(path, VOID)
        largest = max(largest, int(np.max(labels, where=labels != VOID, initial=0)))
    return [f"class {index}" for index in range(largest + 1)]


def _masks(folders: Iterable[Path]) -> Iterator[Path]:
    for each in folders:
        yield from files_in(each).values()
