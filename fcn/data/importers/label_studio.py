"""Label Studio's JSON and JSON-MIN: polygons, rectangles and ellipses in percent of the image, and masks of the brush.

Format: labelstud.io/guide/export and /tags/polygonlabels, /tags/brushlabels. Results are painted in the order of the
file.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ...errors import DataError
from .form import (
    FARTHEST,
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
from .rle import brush_mask
from .tree import Tree, read_json

SNIFFED = 16
"""So many JSON files are looked into."""
KINDS = ("polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels")


def find(tree: Tree) -> list[Path]:
    """JSON files that are lists of tasks."""
    return [path for path in tree.with_suffix(".json")[:SNIFFED] if _is_tasks(path)]


def _is_tasks(path: Path) -> bool:
    try:
        first = next(iter(_tasks(path)), {})
    except DataError:
        return False
    return isinstance(first.get("data"), dict) and _finished(first) is not None


def _tasks(path: Path) -> list[dict[str, Any]]:
    """Of JSON, and of JSON-MIN, whose entries hold fields and lists of values. Raises ``DataError``."""
    found = read_json(path)
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    return [entry if "data" in entry else _from_minimal(entry) for entry in entries]


def _from_minimal(entry: Mapping[str, Any]) -> dict[str, Any]:
    values = [
        value for field in entry.values() if isinstance(field, list) for value in field if isinstance(value, dict)
    ]
    results = [{**value, "type": kind, "value": value} for value in values for kind in KINDS if kind in value]
    is_one = "annotator" in entry or results
    return {"id": entry.get("id"), "data": entry, "annotations": [{"result": results}]} if is_one else {}


def _finished(task: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Annotations of a task that were not skipped."""
    found = task.get("annotations", task.get("completions"))
    if not isinstance(found, list):
        return None
    return [each for each in found if isinstance(each, dict) and not each.get("was_cancelled")]


def read(tree: Tree, files: Sequence[Path]) -> Annotations:
    """Classes: the labels that occur, in alphabetical order."""
    tasks = [(path, task) for path in files for task in _tasks(path)]
    labels = {
        str(name)
        for _, task in tasks
        for annotation in (_finished(task) or [])[:1]
        for result in _results(annotation)
        if isinstance(result.get("value"), dict)
        for name in _labels(result)
    }
    names = Names(sorted(labels), files[0])
    result = names.annotations()
    for path, task in tasks:
        where = f"{path}: task {task.get('id')}"
        try:
            item = _item(tree, path, task, names, result.notes, where)
        except ValueError as error:
            result.left_out.add(str(error), where)
            continue
        if item is None:
            result.notes.add("a task that was skipped or is not annotated is left out", where)
        else:
            result.items.append(item)
    return result


def _results(annotation: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = annotation.get("result")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _labels(result: Mapping[str, Any]) -> list[str]:
    kind = result.get("type")
    found = result["value"].get(kind) if kind in KINDS else None
    return [str(name) for name in found] if isinstance(found, list) else []


def _item(tree: Tree, path: Path, task: Mapping[str, Any], names: Names, notes: Remarks, where: str) -> Item | None:
    annotations = _finished(task)
    if not annotations:
        return None
    if len(annotations) > 1:
        notes.add(f"{len(annotations)} annotations of one image; the first is taken", where)
    image = _image(tree, path, task)
    shapes: list[Shape] = []
    size: Size | None = None
    for result in _results(annotations[0]):
        if not isinstance(result.get("value"), dict) or not _labels(result):
            notes.add(f"a result of the kind {result.get('type')} is no labeled area, and is not used", where)
            continue
        if result.get("image_rotation"):
            raise ValueError("the image was turned while it was annotated; turn the file instead")
        size = (_number(result, "original_width"), _number(result, "original_height"))
        shapes.append(_shape(result, names[_labels(result)[0]], size))
    return Item(tree.name(image), image, path, shapes, size=size, split=tree.split_of(image))


def _image(tree: Tree, path: Path, task: Mapping[str, Any]) -> Path:
    """By the address of the task, with and without the eight characters that an upload gets before its name."""
    data = task.get("data")
    fields = [*(data.values() if isinstance(data, dict) else ()), task.get("file_upload")]
    given = [text for text in fields if isinstance(text, str)]
    for text in given:
        address = urlsplit(text)
        for name in (*parse_qs(address.query).get("d", []), unquote(address.path), address.path):
            for tried in (name, re.sub(r"(^|/)[0-9a-f]{8}-(?=[^/]*$)", r"\1", name)):
                image = tree.image(tried, path)
                if image is not None:
                    return image
    raise ValueError(f"the image is not there: {', '.join(map(repr, given))[:120]}")


def _shape(result: Mapping[str, Any], label: int, size: Size) -> Shape:
    value, kind = result["value"], result["type"]
    if kind == "brushlabels":
        if value.get("format") != "rle":
            raise ValueError(f"a brush's mask in the format {value.get('format')!r}; rle is wanted")
        return Region(label, functools.partial(_mask, value.get("rle")))
    across, down = size[0] / 100, size[1] / 100
    if kind == "polygonlabels":
        return Polygon(label, points_of(value.get("points")) * (across, down))
    x, y = _number(value, "x") * across, _number(value, "y") * down
    if kind == "rectanglelabels":
        points = box_points(x, y, x + _number(value, "width") * across, y + _number(value, "height") * down)
    else:
        points = ellipse_points(x, y, _number(value, "radiusX") * across, _number(value, "radiusY") * down)
    return Polygon(label, turned(points, _number(value, "rotation", 0), x, y))


def _mask(data: Any, size: Size) -> np.ndarray:
    return brush_mask(data, size[1], size[0])


def _number(value: Mapping[str, Any], key: str, default: float | None = None) -> Any:
    """Raises ``ValueError``."""
    number = value.get(key, default)
    if type(number) not in (int, float) or not abs(number) < FARTHEST:
        raise ValueError(f"{key} must be a number, got {str(number)[:40]!r}")
    return number
