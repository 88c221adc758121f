"""Masks and annotations as tools write them, to the plain folder form.

A format is a module with ``find(tree)``, the files that show that a source is of it, and ``read``, which gives
``Annotations``; ``FORMATS`` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError
from . import coco, cvat, label_studio, labelme, masks, yolo
from .form import Annotations, Item
from .masks import MaskOptions
from .tree import Tree, read_json
from .writing import Written, write

__all__ = ["FORMATS", "Annotations", "Item", "MaskOptions", "Written", "read_source", "write"]


class Format(NamedTuple):
    """``what`` is told to people; ``read`` takes the source and what ``find`` found."""

    what: str
    find: Callable[[Tree], list[Path]]
    read: Callable[[Tree, list[Path]], Annotations]


FORMATS = {
    "labelme": Format("labelme's JSON, a file for each image", labelme.find, labelme.read),
    "coco": Format("COCO's JSON", coco.find, coco.read),
    "yolo": Format("YOLO's segmentation polygons", yolo.find, yolo.read),
    "cvat": Format("CVAT's XML for images", cvat.find, cvat.read),
    "label_studio": Format("Label Studio's JSON", label_studio.find, label_studio.read),
}
"""Those of annotations; ``masks`` is the further one."""
MASKS = "masks"


def read_source(
    source: Path, format: str | None = None, images: Path | None = None, options: MaskOptions | None = None
) -> tuple[str, Annotations]:
    """The name of the format, and what is in a source of it: a folder, or an annotation file with its images beside or
    below it or in the folder ``images``.

    Raises ``DataError`` where the source is of none of the formats, or of several and ``format`` does not choose.
    """
    tree = Tree(source, images)
    try:
        return _read(tree, format, options or MaskOptions())
    finally:
        read_json.cache_clear()  # files may change until the next call


def _read(tree: Tree, format: str | None, options: MaskOptions) -> tuple[str, Annotations]:
    if format is None and (options.images or options.masks or options.classes or options.key):
        format = MASKS  # these options are for nothing else
    if format == MASKS:
        result = masks.read(tree, options)
    else:
        name, files = _recognized(tree, format)
        if name == MASKS:
            format, result = name, masks.read(tree, options)
        else:
            format, result = name, FORMATS[name].read(tree, files)
            _say_unused(tree, result)
    _drop_twice(result)
    if not result.items:
        said = result.left_out.lines()
        raise DataError(said[0] if said else f"{tree.source}: no annotated image")
    return format, result


def _recognized(tree: Tree, format: str | None) -> tuple[str, list[Path]]:
    if format is not None:
        files = FORMATS[format].find(tree)
        if not files:
            raise DataError(f"{tree.source}: nothing of {FORMATS[format].what} here{_unreadable(tree)}")
        return format, files
    found = {name: files for name, each in FORMATS.items() if (files := each.find(tree))}
    if tree.source.is_dir():
        try:
            of_masks = masks.find(tree)
        except DataError:
            if not found:
                raise
            of_masks = []  # pictures that could be each other's masks, beside annotations
        found |= {MASKS: of_masks} if of_masks else {}
    if not found:
        raise DataError(
            f"{tree.source}: no annotations and no masks that are known ({', '.join(FORMATS)}, {MASKS})"
            f"{_unreadable(tree)}; --data.images 'PHOTOS/*.jpg' --data.masks 'MASKS/*_mask.png', with your names, says "
            "which files are masks"
        )
    if len(found) > 1:
        several = ", ".join(f"{name} ({files[0]})" for name, files in found.items())
        raise DataError(f"{tree.source}: this may be {several}; --format NAME chooses")
    return next(iter(found.items()))


def _unreadable(tree: Tree) -> str:
    """Why the first JSON file cannot be read, if it cannot."""
    for path in tree.with_suffix(".json")[:1]:
        try:
            read_json(path)
        except DataError as error:
            return f"; {error}"
    return ""


def _say_unused(tree: Tree, result: Annotations) -> None:
    used = {item.image for item in result.items}
    for image in tree.images:
        if image not in used:
            result.notes.add("nothing is said of this image; it is left out", image)


def _drop_twice(result: Annotations) -> None:
    """Of several annotations of one image, all but the first."""
    seen: set[Path] = set()
    kept = []
    for item in result.items:
        if isinstance(item.image, Path):
            if item.image in seen:
                result.left_out.add(f"a second annotation of {item.image.name}; the first is used", item.annotation)
                continue
            seen.add(item.image)
        kept.append(item)
    result.items[:] = kept
