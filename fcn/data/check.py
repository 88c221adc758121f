"""What is wrong with a data set: every image and label file is read once, and every finding names its file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import Any, Literal, cast

import numpy as np
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from ..errors import DataError
from .dataset import FileDataset, SegmentationDataset, sizes_differ
from .files import VOID
from .tasks import plain

Counts = tuple[np.ndarray, Counter[int]]
"""Pixels of each class ``[C]``, and of each stored value that stands for void."""
Trouble = Literal["unusable", "unreadable", "out of range", "size mismatch", "twice", "overlap"]


@dataclass(frozen=True)
class Problem:
    """``what`` begins with the file or the split."""

    split: str
    trouble: Trouble
    what: str


class LabelReport:
    """What label maps hold; ``pixels`` and ``images`` are ``[C]``: per class, and images that have it."""

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes
        self.pixels, self.images = (np.zeros(len(classes), np.int64) for _ in range(2))
        self.void: Counter[int] = Counter()
        """Pixels by the stored value that stands for void."""

    def add(self, pixels: np.ndarray, void: Counter[int]) -> None:
        """What one label map holds."""
        self.pixels += pixels
        self.images += pixels > 0
        self.void.update(void)


@dataclass
class SplitReport:
    """What the files of one split hold: names of images, and labels by task (the name of a single one is empty)."""

    names: list[str]
    labels: dict[str, LabelReport]
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
    splits: Mapping[str, SegmentationDataset | DataError],
    against: Mapping[str, Sequence[str]] | None = None,
    *,
    progress: bool = True,
) -> Report:
    """Read the data sets of all ``splits``: files, of one task or several. (An error: one that could not be listed.)

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
        # Images and problems are those of the split: once, beside its first task.
        of_split = [str(len(split.names)), str(sum(problem.split == name for problem in report.problems))]
        for task, labels in split.labels.items():
            stored = ", ".join(str(value) for value in sorted(labels.void)) or "-"
            void = f"{100 * _void_share(labels):.2f} %"
            overview.add_row(f"{name} {task}".strip(), of_split[0], void, stored, of_split[1])
            of_split = ["", ""]

    tasks = next((list(split.labels) for split in report.splits.values()), [])
    histograms = [
        _histogram(task, {name: split.labels[task] for name, split in report.splits.items()}) for task in tasks
    ]

    found_table = Table("split", "problem", "where", title=f"{len(report.problems)} problems")
    for problem in report.problems[:most]:
        found_table.add_row(problem.split, problem.trouble, Text(problem.what))  # paths are no markup
    if len(report.problems) > most:
        found_table.add_row("", "", f"and {len(report.problems) - most} more (--out writes all of them)")
    return [table for table in (overview, *histograms, found_table) if table.row_count]


def _histogram(task: str, splits: Mapping[str, LabelReport]) -> Table:
    table = Table(f"{task} class".strip(), title="Share of labeled pixels, and images with the class")
    for name in splits:
        table.add_column(name, justify="right")
        table.add_column("images", justify="right")
    for index, label in enumerate(next(iter(splits.values())).classes):
        cells: list[str] = []
        for labels in splits.values():
            share = 100 * labels.pixels[index] / max(1, labels.pixels.sum())
            cells += [f"{share:.2f} %", str(labels.images[index])]
        table.add_row(Text(label), *cells)
    return table


def _check_split(name: str, dataset: SegmentationDataset, progress: bool) -> SplitReport:
    tasks = {task: cast(FileDataset, part) for task, part in dataset.tasks.items()}
    first = next(iter(tasks.values()))
    names = [image.stem for image, _ in first.pairs]
    report = SplitReport(names, {task: LabelReport(part.classes) for task, part in tasks.items()})
    report.problems += [
        Problem(name, "twice", f"{stem} is {times} times in this split")
        for stem, times in Counter(names).items()
        if times > 1
    ]
    # Threads: decoding, which is most of the work, does not hold Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(lambda index: _look(name, list(tasks.values()), index), range(len(dataset)))
        bar = tqdm(
            looks, desc=f"check {name}", total=len(dataset), unit="image", disable=not progress, dynamic_ncols=True
        )
        for found, problems in bar:
            report.problems += problems
            for labels, counts in zip(report.labels.values(), found, strict=True):
                labels.add(*counts)
    return report


def _look(split: str, tasks: Sequence[FileDataset], index: int) -> tuple[list[Counts], list[Problem]]:
    """What the label maps of one image hold, by task, and what is wrong with them and the image."""
    problems: list[Problem] = []
    image = None
    try:
        image = tasks[0].read_pixels(tasks[0].pairs[index][0])
    except DataError as error:
        problems.append(Problem(split, "unreadable", str(error)))
    found = []
    for task in tasks:
        counts, wrong = _look_at_labels(split, task, index, image)
        found.append(counts)
        problems += wrong
    return found, problems


def _look_at_labels(
    split: str, dataset: FileDataset, index: int, image: np.ndarray | None
) -> tuple[Counts, list[Problem]]:
    label_path = dataset.pairs[index][1]
    nothing = np.zeros(len(dataset.classes), np.int64)
    problems: list[Problem] = []
    try:
        stored = dataset.read_stored(label_path)
    except DataError as error:
        return (nothing, Counter()), [Problem(split, "unreadable", str(error))]
    if image is not None and image.shape[:2] != stored.shape:
        problems.append(Problem(split, "size mismatch", sizes_differ(dataset.pairs[index], image, stored)))
    labels, wrong = dataset.codes.decode(stored)
    if wrong.any():
        values = ", ".join(f"{value} ({pixels} pixels)" for value, pixels in _counts(stored[wrong]).items())
        problems.append(Problem(split, "out of range", f"{label_path}: {values}; wanted {dataset.codes}"))
    pixels = np.bincount(labels.ravel(), minlength=VOID + 1)[: len(nothing)]
    return (pixels, _counts(stored[(labels == VOID) & ~wrong])), problems


def _counts(values: np.ndarray) -> Counter[int]:
    found, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def _void_share(labels: LabelReport) -> float:
    void = labels.void.total()
    return void / max(1, void + int(labels.pixels.sum()))


def _split_as_dict(split: SplitReport) -> dict[str, Any]:
    labels = {task: _labels_as_dict(labels) for task, labels in split.labels.items()}
    return {"images": len(split.names), **plain(labels)}


def _labels_as_dict(labels: LabelReport) -> dict[str, Any]:
    return {
        "pixels": dict(zip(labels.classes, labels.pixels.tolist(), strict=True)),
        "images_with": dict(zip(labels.classes, labels.images.tolist(), strict=True)),
        "void": {str(value): count for value, count in labels.void.items()},
    }
