"""Any folder of images and masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError, MissingSplitError
from .dataset import FileDataset
from .files import IMAGE_SUFFIXES, VOID
from .labels import read_labels, read_palette
from .listing import Pair, pairs_in, read_names
from .palette import voc_palette

SPLITS = ("train", "val", "test")


def folder(root: Path, split: str, images: str = "images", masks: str = "masks") -> FileDataset:
    """Your own: folders of images and index masks with the same file stems.

    The first of these layouts that exists is used:

    1. ``<root>/<split>/<images>`` and ``<root>/<split>/<masks>``;
    2. ``<root>/<images>/<split>`` and ``<root>/<masks>/<split>``;
    3. ``<root>/<images>``, ``<root>/<masks>`` and ``<root>/<split>.txt``, one file stem a line;
    4. ``<root>/<images>`` and ``<root>/<masks>`` alone: by name, the first 80 % are ``train``, then 10 % ``val``, 10 %
       ``test`` (blocks, since neighboring names are often neighboring frames).

    Class names: ``<root>/classes.txt``, one a line; without it, the largest label in the masks of the whole folder says
    how many there are. Colors: the palette of the first mask, else the VOC color map.
    """
    if (root / split / images).is_dir():
        pairs = pairs_in(root / split / images, root / split / masks)
        return file_dataset(pairs, root, root.glob(f"*/{masks}"))
    if (root / images / split).is_dir():
        pairs = pairs_in(root / images / split, root / masks / split)
        return file_dataset(pairs, root, [root / masks])
    if (root / f"{split}.txt").is_file():
        pairs = pairs_in(root / images, root / masks, read_names(root / f"{split}.txt"))
        return file_dataset(pairs, root, [root / masks])
    divided = any((root / f"{name}.txt").exists() or (root / images / name).is_dir() for name in SPLITS)
    if (root / images).is_dir() and split in SPLITS and not divided:
        everything = pairs_in(root / images, root / masks)
        first, last = {"train": (0, 8), "val": (8, 9), "test": (9, 10)}[split]
        pairs = everything[len(everything) * first // 10 : len(everything) * last // 10]
        if not pairs:
            raise DataError(f"{root}: {len(everything)} images are too few to divide; split '{split}' would be empty")
        return file_dataset(pairs, root, [root / masks])
    raise MissingSplitError(
        f"{root}: split '{split}' not found; wanted {split}/{images}, {images}/{split}, or {images} with {split}.txt"
    )


def file_dataset(pairs: Sequence[Pair], root: Path, mask_folders: Iterable[Path]) -> FileDataset:
    names_file = root / "classes.txt"
    classes = read_names(names_file) if names_file.is_file() else _classes_in_masks(mask_folders)
    palette = read_palette(pairs[0][1], len(classes)) or voc_palette(len(classes))
    return FileDataset(pairs, classes, palette)


def _classes_in_masks(mask_folders: Iterable[Path]) -> list[str]:
    """Names for classes 0 to the largest label in the masks of all splits, so that all splits agree."""
    largest = 0
    for mask_folder in mask_folders:
        for path in mask_folder.rglob("*"):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                labels = read_labels(path, VOID)
                largest = max(largest, int(np.max(labels, where=labels != VOID, initial=0)))
    return [f"class {index}" for index in range(largest + 1)]
