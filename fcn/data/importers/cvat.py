"""CVAT for images: one XML file with polygons, boxes, ellipses and masks.

Format: docs.cvat.ai/docs/dataset_management/formats/format-cvat (XML 1.1). Shapes are painted by ``z_order``, and
those of one in the order of the file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ...errors import DataError
from ..palette import Color
from .form import (
    Annotations,
    Item,
    Names,
    Polygon,
    Region,
    Remarks,
    Shape,
    Size,
    box_points,
    ellipse_points,
    points_of,
    turned,
)
from .rle import cvat_mask
from .tree import Tree, read_text, split_named

SIDES = ("xtl", "ytl", "xbr", "ybr")


def find(tree: Tree) -> list[Path]:
    """XML files whose first element is ``annotations``."""
    return [path for path in tree.with_suffix(".xml") if _is_cvat(path)]


def _is_cvat(path: Path) -> bool:
    try:
        start = read_text(path)[:4000]
    except DataError:
        return False
    return re.search(r"<annotations[\s>]", start) is not None


def _document(path: Path) -> ElementTree.Element:
    """Raises ``DataError``, for entities too, which could stand for any amount of memory."""
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{path}: XML with a document type, which CVAT does not write, is not read")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, RecursionError, ValueError) as error:
        raise DataError(f"{path}: not XML: {error}") from None


def read(tree: Tree, files: Sequence[Path]) -> Annotations:
    """Classes: the labels of the task or project, with their colors; where they are not listed, those that occur."""
    documents = {path: _document(path) for path in files}
    colors: dict[str, Color | None] = {}
    for path, document in documents.items():
        if document.find("track") is not None:
            raise DataError(f"{path}: tracks of a video; export it from CVAT as 'CVAT for images 1.1'")
        for label in document.iterfind("meta//labels/label"):
            colors.setdefault(label.findtext("name", ""), _color(label.findtext("color", "")))
    occurring = {shape.get("label", "") for document in documents.values() for shape in document.iterfind("image/*")}
    for name in sorted(occurring) if not colors else ():
        colors[name] = None
    names = Names(colors, files[0], {name: color for name, color in colors.items() if color is not None})
    result = names.annotations()
    for path, document in documents.items():
        for entry in document.iterfind("image"):
            name = entry.get("name", "")
            try:
                result.items.append(_item(tree, path, entry, names, result.notes))
            except ValueError as error:
                result.left_out.add(str(error), f"{path}: {name}")
    return result


def _color(text: str) -> Color | None:
    match = re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", text)
    return None if match is None else (int(match[1], 16), int(match[2], 16), int(match[3], 16))


def _item(tree: Tree, path: Path, entry: ElementTree.Element, names: Names, notes: Remarks) -> Item:
    subset = entry.get("subset", "")  # of a project, whose images lie in a folder for each
    image = tree.image(f"{subset}/{entry.get('name', '')}", path)
    if image is None:
        raise ValueError("the image is not there")
    size = (int(_number(entry, "width")), int(_number(entry, "height")))
    elements = sorted(entry, key=lambda element: _number(element, "z_order", 0))
    shapes = [shape for element in elements if (shape := _shape(element, names, notes, path)) is not None]
    split = split_named([subset]) or tree.split_of(image)
    return Item(tree.name(image), image, path, shapes, size=size, split=split)


def _shape(element: ElementTree.Element, names: Names, notes: Remarks, path: Path) -> Shape | None:
    kind, name = element.tag, element.get("label", "")
    if kind not in ("polygon", "box", "ellipse", "mask"):
        notes.add(f"a shape of the kind {kind} has no area, and is not used", path)
        return None
    if name not in names:
        raise ValueError(f"there is no label {name!r} in the file's list")
    label = names[name]
    if kind == "mask":
        left, top, width, height = (int(_number(element, key)) for key in ("left", "top", "width", "height"))
        counts = [int(text) for text in re.findall(r"\d+", element.get("rle", ""))]
        return Region(label, functools.partial(_mask, counts, width, height), left, top)
    if kind == "polygon":
        return Polygon(label, points_of(re.split("[,;]", element.get("points", ""))))
    degrees = _number(element, "rotation", 0)
    if kind == "box":
        left_, top_, right, bottom = (_number(element, key) for key in SIDES)
        points = box_points(left_, top_, right, bottom)
        return Polygon(label, turned(points, degrees, (left_ + right) / 2, (top_ + bottom) / 2))
    x, y, radius_x, radius_y = (_number(element, key) for key in ("cx", "cy", "rx", "ry"))
    return Polygon(label, turned(ellipse_points(x, y, radius_x, radius_y), degrees, x, y))


def _mask(counts: list[int], width: int, height: int, size: Size) -> np.ndarray:
    if not (0 < width <= size[0] and 0 < height <= size[1]):
        raise ValueError(f"a mask of {width}x{height} does not fit its image, {size[0]}x{size[1]}")
    return cvat_mask(counts, height, width)


def _number(element: ElementTree.Element, key: str, default: float | None = None) -> float:
    """Raises ``ValueError``."""
    text = element.get(key)
    if text is None and default is not None:
        return default
    try:
        number = float(text or "")
    except ValueError:
        number = np.nan
    if not abs(number) < 1e9:
        raise ValueError(f"{key} of a {element.tag} must be a number, got {text!r}")
    return number
