"""What is wrong with a data set: every image and label file is read once, and every finding names its file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from .dataset import FileDataset, sizes_differ
from .files import VOID, DataError

Trouble = Literal["unusable", "unreadable", "out of range", "size mismatch", "twice", "overlap"]


@dataclass(frozen=True)
class Problem:
    """``what`` begins with the file or the split."""

    split: str
    trouble: Trouble
    what: str


@dataclass
class SplitReport:
    """What the files of one split hold; ``pixels`` and ``images`` are ``[C]``: per class, and images that have it."""

    classes: list[str]
    names: list[str]
    pixels: np.ndarray
    images: np.ndarray
    void: Counter[int] = field(default_factory=Counter)
    """Pixels by the stored value that stands for void."""
    problems: list[Problem] = field(default_factory=list)


@dataclass
class Report:
    splits: dict[str, SplitReport]
    problems: list[Problem]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "splits": {name: _split_as_dict(split) for name, split in self.splits.items()},
            "problems": [vars(problem) for problem in self.problems],
        }


def check(
    splits: Mapping[str, FileDataset | DataError],
    against: Mapping[str, Sequence[str]] | None = None,
    *,
    progress: bool = True,
) -> Report:
    """Read the data sets of all ``splits`` (an error stands for one that could not be listed).

    against: lists of names of images that no split may hold.
    """
    reports, problems = {}, []
    for name, dataset in splits.items():
        if isinstance(dataset, DataError):
            problems.append(Problem(name, "unusable", str(dataset)))
        else:
            reports[name] = _check_split(name, dataset, progress)
            problems += reports[name].problems
    names = {name: set(report.names) for name, report in reports.items()}
    lists = {name: set(names) for name, names in (against or {}).items()}
    for one, two in (*combinations(names, 2), *product(names, lists)):
        shared = sorted(names[one] & {**lists, **names}[two])
        problems += [Problem(one, "overlap", f"{name} is in {two} too") for name in shared]
    return Report(reports, problems)


def tables(report: Report, title: str, most: int = 30) -> list[Table]:
    """Splits, classes, and at most so many problems."""
    overview = Table("split", title=title)
    for column in ("images", "void", "stored as", "problems"):
        overview.add_column(column, justify="right")
    for name, split in report.splits.items():
        stored = ", ".join(str(value) for value in sorted(split.void)) or "-"
        found = sum(problem.split == name for problem in report.problems)
        overview.add_row(name, str(len(split.names)), f"{100 * _void_share(split):.2f} %", stored, str(found))

    histogram = Table("class", title="Share of labeled pixels, and images with the class")
    for name in report.splits:
        histogram.add_column(name, justify="right")
        histogram.add_column("images", justify="right")
    classes = next((split.classes for split in report.splits.values()), [])
    for index, label in enumerate(classes):
        cells: list[str] = []
        for split in report.splits.values():
            share = 100 * split.pixels[index] / max(1, split.pixels.sum())
            cells += [f"{share:.2f} %", str(split.images[index])]
        histogram.add_row(Text(label), *cells)

    found_table = Table("split", "problem", "where", title=f"{len(report.problems)} problems")
    for problem in report.problems[:most]:
        found_table.add_row(problem.split, problem.trouble, Text(problem.what))  # paths are no markup
    if len(report.problems) > most:
        found_table.add_row("", "", f"and {len(report.problems) - most} more (--out writes all of them)")
    return [table for table in (overview, histogram, found_table) if table.row_count]


def _check_split(name: str, dataset: FileDataset, progress: bool) -> SplitReport:
    count = len(dataset.classes)
    names = [image.stem for image, _ in dataset.pairs]
    report = SplitReport(dataset.classes, names, np.zeros(count, np.int64), np.zeros(count, np.int64))
    report.problems += [
        Problem(name, "twice", f"{stem} is {times} times in this split")
        for stem, times in Counter(names).items()
        if times > 1
    ]
    # Threads: decoding, which is most of the work, does not hold Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(lambda index: _look(name, dataset, index), range(len(dataset)))
        bar = tqdm(
            looks, desc=f"check {name}", total=len(dataset), unit="image", disable=not progress, dynamic_ncols=True
        )
        for pixels, void, problems in bar:
            report.pixels += pixels
            report.images += pixels > 0
            report.void.update(void)
            report.problems += problems
    return report


def _look(split: str, dataset: FileDataset, index: int) -> tuple[np.ndarray, Counter[int], list[Problem]]:
    """Pixels of each class ``[C]``, of each void value, and what is wrong with one pair."""
    image_path, label_path = dataset.pairs[index]
    nothing = np.zeros(len(dataset.classes), np.int64)
    problems: list[Problem] = []
    image = stored = None
    try:
        image = dataset.read_pixels(image_path)
    except DataError as error:
        problems.append(Problem(split, "unreadable", str(error)))
    try:
        stored = dataset.read_stored(label_path)
    except DataError as error:
        return nothing, Counter(), [*problems, Problem(split, "unreadable", str(error))]
    if image is not None and image.shape[:2] != stored.shape:
        problems.append(Problem(split, "size mismatch", sizes_differ(dataset.pairs[index], image, stored)))
    labels, wrong = dataset.codes.decode(stored)
    if wrong.any():
        values = ", ".join(f"{value} ({pixels} pixels)" for value, pixels in _counts(stored[wrong]).items())
        problems.append(Problem(split, "out of range", f"{label_path}: {values}; wanted {dataset.codes}"))
    pixels = np.bincount(labels.ravel(), minlength=VOID + 1)[: len(nothing)]
    return pixels, _counts(stored[(labels == VOID) & ~wrong]), problems


def _counts(values: np.ndarray) -> Counter[int]:
    found, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _void_share(split: SplitReport) -> float:
    void = split.void.total()
    return void / max(1, void + int(split.pixels.sum()))


def _split_as_dict(split: SplitReport) -> dict[str, Any]:
    return {
        "images": len(split.names),
        "pixels": dict(zip(split.classes, split.pixels.tolist(), strict=True)),
        "images_with": dict(zip(split.classes, split.images.tolist(), strict=True)),
        "void": {str(value): count for value, count in split.void.items()},
    }
