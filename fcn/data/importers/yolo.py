"""YOLO's segmentation: a text file for each image, in each line a class and a polygon in parts of width and height.

Format: docs.ultralytics.com/datasets/segment. Lines are painted in their order.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from ...errors import DataError
from ..folders import OTHER_NAMES, SPLITS
from .form import Annotations, Item, Names, Polygon, Remarks, points_of
from .tree import Tree, lines_of, read_text

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
LINE = re.compile(rf"\d+(?:\s+{NUMBER})+")
SNIFFED = 20
"""So many files of labels are looked into to recognize a source."""


def find(tree: Tree) -> list[Path]:
    """The file that names classes, or else the source, where text files of numbers lie beside or parallel to images."""
    labels = filter(None, (_label_file(tree, image) for image in tree.images))
    if not any(_looks_like_labels(path) for path in itertools.islice(labels, SNIFFED)):
        return []
    named = [path for path in tree.with_suffix(".yaml", ".yml") if _names(path)]
    named += [path for path in tree.with_suffix(".txt") if path.name in ("classes.txt", "obj.names")]
    return named[:1] or [tree.source]


def _looks_like_labels(path: Path) -> bool:
    try:
        lines = [line for _, line in lines_of(path)]
    except DataError:
        return False
    return bool(lines) and all(LINE.fullmatch(line) for line in lines)


def _label_file(tree: Tree, image: Path) -> Path | None:
    """In the folder ``labels`` that is parallel to the last ``images``, or beside the image."""
    parts = image.parts
    at = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    parallel = [Path(*parts[: at[-1]], "labels", *parts[at[-1] + 1 :])] if at else []
    return next((path for path in (p.with_suffix(".txt") for p in (*parallel, image)) if path in tree), None)


def read(tree: Tree, files: Sequence[Path]) -> Annotations:
    """Classes: ``names`` of the YAML file, the lines of ``classes.txt``, or numbers."""
    labels = {image: path for image in tree.images if (path := _label_file(tree, image)) is not None}
    settings = _settings(files[0]) if files[0].suffix.lower() in (".yaml", ".yml") else {}
    numbered = _names(files[0]) if files[0] != tree.source else _numbers(labels.values())
    names = Names(numbered.values(), files[0])
    result = names.annotations()
    polygons, places = 0, _places(tree, settings)
    for image in tree.images:
        path, split = labels.get(image), _split(tree, image, places)
        try:
            shapes = [] if path is None else list(_polygons(path, numbered, names, result.notes))
        except ValueError as error:
            result.left_out.add(str(error))
            continue
        if path is None:
            result.notes.add("no file of labels: the image is all background", image)
        polygons += len(shapes)
        result.items.append(Item(tree.name(image), image, path or image, shapes, split=split))
    if not polygons:
        raise DataError(
            f"{tree.source}: labels with no polygon, boxes perhaps; those of YOLO's segmentation are wanted"
        )
    return result


def _polygons(path: Path, numbered: Mapping[int, str], names: Names, notes: Remarks) -> Iterator[Polygon]:
    """Raises ``ValueError`` with file and line."""
    for number, line in lines_of(path):
        where = f"{path}: line {number}"
        if not LINE.fullmatch(line):
            raise ValueError(f"{where}: a class and the numbers of a polygon are wanted, got {line[:60]!r}")
        first, *numbers = line.split()
        if int(first) not in numbered:
            raise ValueError(f"{where}: there is no class {first}")
        if len(numbers) == 4:
            notes.add("a box, no polygon, is not used", where)
            continue
        try:
            points = points_of([float(text) for text in numbers])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        yield Polygon(names[numbered[int(first)]], points, relative=True)


def _numbers(paths: Any) -> dict[int, str]:
    """Names for the classes 0 to the largest that occurs."""
    firsts = [line.split()[0] for path in paths for _, line in _safe_lines(path)]
    largest = max((int(text) for text in firsts if text.isdecimal() and len(text) < 6), default=0)
    return {number: f"class {number}" for number in range(largest + 1)}


def _safe_lines(path: Path) -> list[tuple[int, str]]:
    try:
        return list(lines_of(path))
    except DataError:
        return []  # reading it will say so


def _names(path: Path) -> dict[int, str]:
    """Names by number; nothing where the file has none that can be read."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return dict(enumerate(line for _, line in lines_of(path)))
    try:
        found = _settings(path).get("names")
    except DataError:
        return {}
    if isinstance(found, list):
        return {number: str(name) for number, name in enumerate(found)}
    if isinstance(found, dict) and all(type(number) is int for number in found):
        return {number: str(found[number]) for number in sorted(found)}
    return {}


def _settings(path: Path) -> dict[str, Any]:
    """A YAML file without aliases, which could stand for any amount of memory. Raises ``DataError``."""
    text = read_text(path)
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise DataError(f"{path}: aliases (*name) are not read")
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())[:200]}") from None
    return found if isinstance(found, dict) else {}


def _places(tree: Tree, settings: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], set[str]]]:
    """Splits, and their folders or the names in their lists, as the YAML file gives them."""
    found = []
    for split in SPLITS:
        for name in (split, *OTHER_NAMES[split]):
            for given in _strings(settings.get(name)):
                parts = tuple(part for part in PureWindowsPath(given).parts if part not in (".", ".."))
                is_list = given.endswith(".txt")
                found.append((split, () if is_list else parts, _listed(tree, parts) if is_list else set()))
    return found


def _split(tree: Tree, image: Path, places: Sequence[tuple[str, tuple[str, ...], set[str]]]) -> str:
    """By what the YAML file says, or by the folder that the image lies in."""
    below = tree.below(image)
    for split, parts, names in places:
        if below.name in names or (parts and _holds(below.parts, parts)):
            return split
    return tree.split_of(image)


def _holds(path: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    return any(path[start : start + len(parts)] == parts for start in range(len(path)))


def _strings(value: Any) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def _listed(tree: Tree, parts: Sequence[str]) -> set[str]:
    """Names of the images that a list of the source holds."""
    path = tree.root.joinpath(*parts)
    return {PureWindowsPath(line).name for _, line in lines_of(path)} if path in tree else set()
