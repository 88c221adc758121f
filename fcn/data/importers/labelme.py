"""labelme: a JSON file for each image, with shapes in pixels.

Format: the files of ``labelme`` (github.com/wkentaro/labelme, ``labelme/label_file.py`` and ``utils/shape.py``). Later
shapes lie over earlier ones, as in its own export.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import DataError
from ..files import pil_to_array
from .form import Annotations, Item, Names, Polygon, Region, Remarks, Shape, Size, box_points, ellipse_points, points_of
from .tree import Tree, read_json, read_text

SNIFFED = 8
"""So many JSON files are looked into to recognize a source."""


def find(tree: Tree) -> list[Path]:
    """All JSON files, if one of the first is labelme's."""
    files = tree.with_suffix(".json")
    return files if any(_is_labelme(path) for path in files[:SNIFFED]) else []


def _is_labelme(path: Path) -> bool:
    try:
        return _document(path) is not None
    except DataError:
        return False


def _document(path: Path) -> Mapping[str, Any] | None:
    """Raises ``DataError`` for what is not JSON."""
    found = read_json(path)
    is_labelme = isinstance(found, dict) and isinstance(found.get("shapes"), list) and "imagePath" in found
    return found if is_labelme else None


def read(tree: Tree, files: list[Path]) -> Annotations:
    """Classes: the lines of ``labels.txt`` (labelme's ``--labels``) where there is one, else in alphabetical order."""
    left_out = Remarks()
    usable = []
    labels = set()
    for path in files:
        try:
            document = _document(path)
        except DataError as error:
            left_out.add(str(error))
            continue
        if document is None:
            left_out.add("not labelme's JSON (shapes and imagePath are wanted)", path)
            continue
        usable.append(path)
        labels |= {str(shape["label"]) for shape in document["shapes"] if isinstance(shape, dict) and "label" in shape}
    listed = next((path for path in tree.with_suffix(".txt") if path.name == "labels.txt"), None)
    first = [] if listed is None else [line.strip() for line in read_text(listed).splitlines() if line.strip()]
    names = Names([*first, *sorted(labels - set(first))], tree.source)
    result = names.annotations()
    result.left_out = left_out
    if listed is not None and labels - set(first):
        result.notes.add(
            f"labels that are not listed are classes too: {', '.join(sorted(labels - set(first)))}", listed
        )
    for path in usable:
        try:
            result.items.append(_item(tree, path, names, result.notes))
        except ValueError as error:
            result.left_out.add(str(error), path)
    return result


def _item(tree: Tree, path: Path, names: Names, notes: Remarks) -> Item:
    document = read_json(path)
    image: Any = tree.image(str(document["imagePath"]), path)
    name = tree.name(path) if image is None else tree.name(image)
    if image is None:
        if not document.get("imageData"):
            raise ValueError(f"image {document['imagePath']!r} is not there, nor within the file")
        notes.add("the image is not there; the copy within the file is taken", path)
        image = functools.partial(_embedded, path)
    size = document.get("imageWidth"), document.get("imageHeight")
    shapes = [shape for found in document["shapes"] if (shape := _shape(found, names, path, notes)) is not None]
    stated = (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else None
    split = tree.split_of(path) if callable(image) else tree.split_of(image) or tree.split_of(path)
    return Item(name, image, path, shapes, size=stated, split=split)


def _shape(shape: Any, names: Names, path: Path, notes: Remarks) -> Shape | None:
    if not isinstance(shape, dict) or "label" not in shape or not isinstance(shape.get("points"), list):
        raise ValueError("a shape must have a label and points")
    label, kind, points = names[str(shape["label"])], shape.get("shape_type") or "polygon", shape["points"]
    if kind in ("polygon", "rotation", "oriented_rectangle") or (kind == "rectangle" and len(points) > 2):
        return Polygon(label, points_of(points))  # of four corners, as X-AnyLabeling has rectangles
    if kind in ("rectangle", "circle", "mask"):
        (ax, ay), (bx, by) = _two(points, kind)
        if kind == "rectangle":
            return Polygon(label, box_points(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)))
        if kind == "circle":
            radius = float(np.hypot(bx - ax, by - ay))
            return Polygon(label, ellipse_points(ax, ay, radius, radius))
        return Region(label, functools.partial(_mask, shape.get("mask")), round(ax), round(ay))
    notes.add(f"a shape of the kind {kind} has no area, and is not used", path)
    return None


def _two(points: list[Any], kind: str) -> np.ndarray:
    try:
        values = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.zeros(0)
    if values.shape != (2, 2) or not np.isfinite(values).all():
        raise ValueError(f"a {kind} must be two points, got {str(points)[:60]}")
    return values


def _mask(encoded: Any, size: Size) -> np.ndarray:
    """A PNG in base64, as large as the box of the object."""
    with _decoded(encoded, "mask") as image:
        if image.width > size[0] or image.height > size[1]:
            raise ValueError(f"a mask of {image.width}x{image.height} does not fit its image, {size[0]}x{size[1]}")
        return np.asarray(image.convert("L")) > 0


def _embedded(path: Path) -> np.ndarray:
    try:
        with _decoded(read_json(path)["imageData"], "image") as image:
            return pil_to_array(image, str(path))
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _decoded(encoded: Any, what: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(base64.b64decode(encoded)))
        image.load()
    except MemoryError:
        raise
    except Exception:  # as of files (``opening``), Pillow raises many types
        raise ValueError(f"the {what} within the file is no image in base64") from None
    return image
