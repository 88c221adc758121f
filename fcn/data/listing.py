"""Finding the files of a split."""

from __future__ import annotations

import codecs
import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from ..errors import DataError, MissingSplitError
from .opening import IMAGE_SUFFIXES, is_hidden

Pair = tuple[Path, Path]
LISTS = Path(__file__).parent / "lists"
"""Lists of PASCAL VOC that its archives lack: ``seg11valid`` (what the FCN papers validate on: VOC2011 val without SBD
train), or that other archives lack: ``voc2012val``."""


def folder_of(path: Path) -> Path:
    if not path.is_dir():
        raise MissingSplitError(f"{path}: folder not found")
    return path


def read_names(path: Path) -> list[str]:
    """Lines of a list file, without blanks. UTF-8, or UTF-16 with the mark that Windows' programs put before it."""
    if not path.is_file():
        raise MissingSplitError(f"{path}: list not found (the split's name is the file's stem)")
    content = path.read_bytes()
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        lines = content.decode("utf-16" if utf16 else "utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8: {error}") from None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: the list is empty")
    return names


def split_names(lists: Path, split: str) -> list[str]:
    """Names in ``<lists>/<split>.txt``, else in a list of this package (``LISTS``).

    Lists are joined and taken away from left to right: ``train+val``, ``train+val-seg11valid``.
    """
    first, *rest = [split] if (lists / f"{split}.txt").is_file() else re.split(r"([+-])", split)
    names = read_names(list_file(first, lists / f"{first}.txt"))
    for sign, other in zip(rest[::2], rest[1::2], strict=True):
        others = read_names(list_file(other, lists / f"{other}.txt"))
        names = list(dict.fromkeys(names + others)) if sign == "+" else _without(names, set(others))
    if not names:
        raise DataError(f"{lists}: split '{split}' is empty")
    return names


def _without(names: Sequence[str], others: Container[str]) -> list[str]:
    return [name for name in names if name not in others]


def list_file(name: str, own: Path) -> Path:
    """``own``, or the list of this package that bears the name."""
    ours = LISTS / f"{name}.txt"
    return own if own.is_file() or not ours.is_file() else ours


def files_in(path: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """Files by stem, in the order of their names, without those that systems hide. Raises ``DataError`` for two of one
    stem."""
    files: dict[str, Path] = {}
    for file in sorted(folder_of(path).iterdir()):
        if file.suffix.lower() not in suffixes or is_hidden(Path(file.name)):
            continue
        if file.stem in files:
            raise DataError(f"{files[file.stem]} and {file.name} have one stem: which is meant? Move one elsewhere")
        files[file.stem] = file
    return files


def pairs_in(
    images: Path, masks: Path, names: Sequence[str] | None = None, mask_suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> list[Pair]:
    """Images and masks of equal stem in two folders, of all images or of ``names``."""
    image_files, mask_files = files_in(images), files_in(masks, mask_suffixes)
    return match(image_files, mask_files, (images, masks), list(image_files) if names is None else names)


def match(
    images: Mapping[str, Path], masks: Mapping[str, Path], folders: tuple[Path, Path], names: Sequence[str]
) -> list[Pair]:
    """Pairs by name. Raises ``DataError`` for a missing file; ``folders`` (of images, of masks) are for the message."""
    if not names:
        raise DataError(f"{folders[0]}: no images ({', '.join(IMAGE_SUFFIXES[:12])}, ...)")
    no_image = [name for name in names if name not in images]
    if no_image:
        raise DataError(
            f"{folders[0]}: image '{no_image[0]}' of the split's list is missing (a list holds stems of files)"
            f"{_more(no_image)}"
        )
    no_mask = [images[name].name for name in names if name not in masks]
    if no_mask:
        raise DataError(f"{folders[1]}: mask of image '{no_mask[0]}' is missing (same stem wanted){_more(no_mask)}")
    return [(images[name], masks[name]) for name in names]


def _more(names: Sequence[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
