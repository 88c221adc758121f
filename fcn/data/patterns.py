"""Images and masks by two patterns of paths, for folders that have no form of their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import DataError
from .listing import Pair
from .opening import IMAGE_SUFFIXES

ARRAY_SUFFIXES = (".mat", ".npy")
"""Masks that are no images."""


def is_pattern(text: str) -> bool:
    return "*" in text


def pairs_by_patterns(root: Path, files: Sequence[Path], images: str, masks: str) -> tuple[list[Pair], list[str]]:
    """Images and masks below ``root`` for which the ``*`` of two patterns stand for the same; and notes.

    ``*`` stands for any part of a name, ``**/`` for any folders; a pattern that ends with ``*`` takes any suffix. Both
    must have as many of each: ``photos/**/*.jpg``, ``truth/**/*_mask.png``. There are none where no image is found.
    Raises ``DataError`` for images without any mask, and two files for one.
    """
    if _wildcards(images) != _wildcards(masks):
        raise DataError(f"patterns of images and masks must have the same * and **, got '{images}' and '{masks}'")
    image_files, mask_files = _found(root, files, images), _found(root, files, masks)
    pairs = [(image, mask_files[key]) for key, image in image_files.items() if key in mask_files]
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    if image_files and not pairs:
        raise DataError(
            f"{root}: no image has a mask: {len(image_files)} files match '{images}', {len(mask_files)} match '{masks}'"
        )
    as_masks = set(mask_files.values())
    without = [path for key, path in image_files.items() if key not in mask_files and path not in as_masks]
    notes = [f"{root}: {len(without)} images have no mask and are left out ({without[0].name}, ...)"] if without else []
    return pairs, notes


def _wildcards(pattern: str) -> list[str]:
    return re.findall(r"\*\*/|\*", pattern)


def _found(root: Path, files: Iterable[Path], pattern: str) -> dict[tuple[str, ...], Path]:
    parts = re.split(r"(\*\*/|\*)", pattern)
    meaning = {"**/": r"((?:[^/]+/)*)", "*": r"([^/]*)"}
    expression = "".join(meaning.get(part, re.escape(part)) for part in parts)
    expression += r"\.[^./]+" if pattern.endswith("*") else ""
    found: dict[tuple[str, ...], Path] = {}
    for path in files:
        match = re.fullmatch(expression, path.relative_to(root).as_posix())
        if match is None or path.suffix.lower() not in (*IMAGE_SUFFIXES, *ARRAY_SUFFIXES):
            continue
        if match.groups() in found:
            raise DataError(f"'{pattern}': {found[match.groups()]} and {path} are as good")
        found[match.groups()] = path
    return found
