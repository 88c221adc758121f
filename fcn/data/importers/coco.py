"""COCO: one JSON file for many images, with polygons and masks as lengths of runs; Roboflow's, a file for each split.

Format: cocodataset.org/#format-data and ``pycocotools/mask``. Annotations are painted in the order of the file; the
parts of one are joined.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ..palette import Color
from .form import Annotations, Item, Names, Polygon, Region, Remarks, Shape, Size, points_of
from .rle import coco_mask
from .tree import Tree, read_json

SNIFFED = 16
"""So many JSON files are looked into."""
Entries = dict[int, dict[str, Any]]


def find(tree: Tree) -> list[Path]:
    """The JSON files with images, categories and segmentations."""
    return [path for path in tree.with_suffix(".json")[:SNIFFED] if _is_coco(path)]


def _is_coco(path: Path) -> bool:
    try:
        document = read_json(path)
    except DataError:
        return False
    lists = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(isinstance(document.get(name), list) for name in lists):
        return False
    annotations = document["annotations"]
    return not annotations or any(isinstance(a, dict) and "segmentation" in a for a in annotations)


def read(tree: Tree, files: Sequence[Path]) -> Annotations:
    """Classes: the categories of all files by their names, in the order of their numbers."""
    categories = {path: _numbered(read_json(path)["categories"], f"{path}: categories") for path in files}
    names: dict[str, Color | None] = {}
    groups: list[str] = []
    for path, entries in categories.items():
        parents = {
            str(each.get("supercategory")) for each in entries.values() if each.get("supercategory") != _name(each)
        }
        used = {_number(annotation, "category_id") for annotation in read_json(path)["annotations"]}
        for number in sorted(entries):
            name = _name(entries[number])
            if name in parents and number not in used:
                groups.append(name)
            else:
                names.setdefault(name, _color(entries[number]))
    table = Names(names, files[0], {name: color for name, color in names.items() if color is not None})
    result = table.annotations()
    for name in dict.fromkeys(groups):
        result.notes.add(f"category {name!r} stands for a group of others, and is no class")
    for path, entries in categories.items():
        labels = {number: table[_name(entry)] for number, entry in entries.items() if _name(entry) in table}
        _add(tree, path, labels, result)
    return result


def _name(category: Mapping[str, Any]) -> str:
    return str(category.get("name", f"category {category['id']}"))


def _numbered(entries: Sequence[Any], what: str) -> Entries:
    """Entries by their ``id``. Raises ``DataError``."""
    found: Entries = {}
    for entry in entries:
        if not isinstance(entry, dict) or type(entry.get("id")) is not int:
            raise DataError(f"{what}: an entry must have a whole number 'id', got {str(entry)[:60]}")
        found[entry["id"]] = entry
    return found


def _number(annotation: Any, key: str) -> int | None:
    """None where there is no whole number."""
    found = annotation.get(key) if isinstance(annotation, dict) else None
    return found if type(found) is int else None


def _color(category: Mapping[str, Any]) -> Color | None:
    """As panoptic files have it."""
    color = category.get("color")
    if isinstance(color, list) and len(color) == 3 and all(type(c) is int and 0 <= c < 256 for c in color):
        return (color[0], color[1], color[2])
    return None


def _add(tree: Tree, path: Path, labels: Mapping[int, int], result: Annotations) -> None:
    document = read_json(path)
    images = _numbered(document["images"], f"{path}: images")
    shapes: dict[int, list[Shape]] = {number: [] for number in images}
    for position, annotation in enumerate(document["annotations"]):
        number = _number(annotation, "image_id")
        if number not in images:
            what = "an annotation of no image of the file is not used"
            result.notes.add(what, f"{path}: annotations[{position}]")
            continue
        where = f"{path}: annotations[{position}] of {images[number].get('file_name')}"
        try:
            if number in shapes:
                shapes[number] += _shapes(annotation, labels, where, result.notes)
        except ValueError as error:
            result.left_out.add(f"{error}; the image is left out", where)
            del shapes[number]
    for number in shapes:
        entry = images[number]
        name = str(entry.get("file_name", ""))
        try:
            image = tree.image(name, path)
        except ValueError as error:
            result.left_out.add(str(error), path)
            continue
        if image is None:
            result.left_out.add("the image is not there", f"{path}: {name}")
            continue
        size = (entry["width"], entry["height"]) if {"width", "height"} <= entry.keys() else None
        split = tree.split_of(path, file_too=True) or tree.split_of(image)
        result.items.append(Item(tree.name(image), image, path, shapes[number], size=size, split=split))


def _shapes(annotation: Mapping[str, Any], labels: Mapping[int, int], where: str, notes: Remarks) -> list[Shape]:
    """The parts of an object: polygons, or one mask. Raises ``ValueError``."""
    category, parts = _number(annotation, "category_id"), annotation.get("segmentation")
    if category is None or category not in labels:
        raise ValueError(f"there is no category {annotation.get('category_id')!r}")
    if isinstance(parts, dict):
        return [Region(labels[category], functools.partial(_mask, parts))]
    if not parts:
        notes.add("an annotation without segmentation (a box alone) is not used", where)
        return []
    if not isinstance(parts, list):
        raise ValueError(f"a segmentation must be polygons or a mask, got {str(parts)[:60]}")
    return [Polygon(labels[category], points_of(part)) for part in parts]


def _mask(parts: Mapping[str, Any], size: Size) -> np.ndarray:
    width, height = size
    if parts.get("size") != [height, width]:
        raise ValueError(f"a mask of height and width {str(parts.get('size'))[:40]} on an image of {height}, {width}")
    return coco_mask(parts.get("counts"), height, width)
