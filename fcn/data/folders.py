"""Data sets on disk: CamVid, PASCAL VOC, and any folder of images and masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .dataset import FileDataset
from .files import IMAGE_SUFFIXES, VOID, DataError, read_labels, read_palette
from .palette import voc_palette

SPLITS = ("train", "val", "test")
VOC_CLASSES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip


def camvid(root: Path, split: str) -> FileDataset:
    """``<root>/<split>/images/*.jpg``, ``<root>/<split>/labels/*.png`` and ``<root>/classes.txt``; 11 classes."""
    pairs = _pairs(_folder(root / split / "images"), _folder(root / split / "labels"))
    return _file_dataset(pairs, root, root.glob("*/labels"))


def voc(root: Path, split: str) -> FileDataset:
    """VOC2011 or VOC2012: ``JPEGImages``, ``SegmentationClass`` and ``ImageSets/Segmentation/<split>.txt``."""
    names = _names(root / "ImageSets" / "Segmentation" / f"{split}.txt")
    pairs = _pairs(_folder(root / "JPEGImages"), _folder(root / "SegmentationClass"), names)
    return FileDataset(pairs, list(VOC_CLASSES), voc_palette(len(VOC_CLASSES)))


def folder(root: Path, split: str, images: str = "images", masks: str = "masks") -> FileDataset:
    """Any folders of images and index masks with the same file stems. The first of these layouts that exists is used:

    1. ``<root>/<split>/<images>`` and ``<root>/<split>/<masks>``;
    2. ``<root>/<images>/<split>`` and ``<root>/<masks>/<split>``;
    3. ``<root>/<images>``, ``<root>/<masks>`` and ``<root>/<split>.txt``, one file stem a line;
    4. ``<root>/<images>`` and ``<root>/<masks>`` alone: by name, the first 80 % are ``train``, then 10 % ``val``, 10 %
       ``test`` (blocks, since neighboring names are often neighboring frames).

    Class names: ``<root>/classes.txt``, one a line; without it, the largest label in the masks of the whole folder says
    how many there are. Colors: the palette of the first mask, else the VOC color map.
    """
    if (root / split / images).is_dir():
        pairs = _pairs(root / split / images, _folder(root / split / masks))
        return _file_dataset(pairs, root, root.glob(f"*/{masks}"))
    if (root / images / split).is_dir():
        pairs = _pairs(root / images / split, _folder(root / masks / split))
        return _file_dataset(pairs, root, [root / masks])
    if (root / f"{split}.txt").is_file():
        pairs = _pairs(_folder(root / images), _folder(root / masks), _names(root / f"{split}.txt"))
        return _file_dataset(pairs, root, [root / masks])
    divided = any((root / f"{name}.txt").exists() or (root / images / name).is_dir() for name in SPLITS)
    if (root / images).is_dir() and split in SPLITS and not divided:
        everything = _pairs(root / images, _folder(root / masks))
        first, last = {"train": (0, 8), "val": (8, 9), "test": (9, 10)}[split]
        pairs = everything[len(everything) * first // 10 : len(everything) * last // 10]
        if not pairs:
            raise DataError(f"{root}: {len(everything)} images are too few to divide; split '{split}' would be empty")
        return _file_dataset(pairs, root, [root / masks])
    raise DataError(
        f"{root}: split '{split}' not found; wanted {split}/{images}, {images}/{split}, or {images} with {split}.txt"
    )


def _file_dataset(pairs: Sequence[tuple[Path, Path]], root: Path, mask_folders: Iterable[Path]) -> FileDataset:
    names_file = root / "classes.txt"
    classes = _names(names_file) if names_file.is_file() else _classes_in_masks(mask_folders)
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


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise DataError(f"{path}: folder not found")
    return path


def _names(path: Path) -> list[str]:
    """Lines of a list file, without blanks."""
    if not path.is_file():
        raise DataError(f"{path}: list not found (the split's name is the file's stem)")
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file: {error}") from None
    if not names:
        raise DataError(f"{path}: the list is empty")
    return names


def _files(path: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES}


def _pairs(images: Path, masks: Path, names: Sequence[str] | None = None) -> list[tuple[Path, Path]]:
    image_files, mask_files = _files(images), _files(masks)
    if names is None:
        names = list(image_files)
    if not names:
        raise DataError(f"{images}: no images ({', '.join(IMAGE_SUFFIXES)})")
    for name in names:
        if name not in image_files:
            raise DataError(f"{images}: image '{name}' of the split's list is missing")
        if name not in mask_files:
            raise DataError(f"{masks}: mask of image '{image_files[name].name}' is missing (same stem wanted)")
    return [(image_files[name], mask_files[name]) for name in names]
