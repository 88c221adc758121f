"""What is wrong with a data set: every image and label file is read once, and every finding names its file or split.

``cheap_problems`` is the part of it that does not take long, for the start of a training.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from tqdm import tqdm

from ..errors import DataError
from .dataset import FileDataset, SegmentationDataset, sizes_differ
from .findings import Counts, LabelReport, count_labels, count_values, findings, odd_masks
from .opening import left_out
from .tasks import distinct, plain

CHEAP_MASKS = 48
"""So many masks of a split are looked at before a training."""
Trouble = Literal[
    "unusable", "unreadable", "out of range", "size mismatch", "twice", "overlap", "left out", "nothing to learn"
]


@dataclass(frozen=True)
class Problem:
    """``what`` begins with the file or the split."""

    split: str
    trouble: Trouble
    what: str


@dataclass
class SplitReport:
    """What the files of one split hold: names of images, and labels by task (the name of a single one is empty)."""

    names: list[str]
    labels: dict[str, LabelReport]
    problems: list[Problem] = field(default_factory=list)
    notes: Sequence[str] = ()
    """What was understood of files that could mean something else."""


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

    against: lists of names of images that no split may hold. The first split is the one to train on: its label maps
    must show every class.
    """
    reports, problems = {}, []
    training = next(iter(splits), "")
    for name, dataset in splits.items():
        if isinstance(dataset, DataError):
            problems.append(Problem(name, "unusable", str(dataset)))
        else:
            reports[name] = _check_split(name, dataset, progress)
            found = _of_split(reports[name].labels, name == training)
            reports[name].problems += [Problem(name, "nothing to learn", what) for what in found]
            problems += reports[name].problems
    names = {name: set(report.names) for name, report in reports.items()}
    lists = {name: set(names) for name, names in (against or {}).items()}
    for one, two in (*combinations(names, 2), *product(names, lists)):
        shared = sorted(names[one] & {**lists, **names}[two])
        problems += [Problem(one, "overlap", f"{name} is in {two} too") for name in shared]
    return Report(reports, problems)


def cheap_problems(train_set: SegmentationDataset, val_set: SegmentationDataset) -> list[str]:
    """Why a training would learn nothing, or something else than meant, in a line each: from at most ``CHEAP_MASKS``
    label maps of either split, spread over it. Nothing is said of what only all files together could tell."""
    problems = []
    for split, dataset, training in (("training", train_set, True), ("validation", val_set, False)):
        step = -(-len(dataset) // CHEAP_MASKS) or 1
        for task, part in dataset.tasks.items():
            labels = LabelReport(part)
            for index in range(0, len(part), step):
                try:
                    counts, wrong = _counts(split, part, index)
                except DataError as error:
                    wrong = [Problem(split, "unreadable", str(error))]
                else:
                    labels.add(*counts)
                problems += [f"{split} split: {problem.what}" for problem in wrong]
            problems += [f"{split} split: {what}" for what in _of_split({task: labels}, training, whole=step == 1)]
        first = next(iter(dataset.tasks.values()))
        if isinstance(first, FileDataset):
            problems += [f"{split} split: {what}" for what in (*odd_masks(first, step), *_left_out(first, step))]
    return problems


def _left_out(dataset: FileDataset, step: int) -> list[str]:
    """The first image of which something is not used."""
    for image, _ in dataset.pairs[::step]:
        try:
            found = left_out(image)
        except DataError:
            continue  # reading it will say so
        if found:
            return [found]
    return []


def _counts(split: str, dataset: SegmentationDataset, index: int) -> tuple[Counts, list[Problem]]:
    """What a label map holds, and values in it that mean nothing. Raises ``DataError``."""
    if not isinstance(dataset, FileDataset):
        target = dataset[index]["target"]
        return count_labels(target, target, np.zeros(target.shape, bool), len(dataset.classes)), []
    path = dataset.pairs[index][1]
    return _count(split, dataset, dataset.read_stored(path), path)


def _count(split: str, dataset: FileDataset, stored: np.ndarray, path: Path) -> tuple[Counts, list[Problem]]:
    labels, wrong = dataset.codes.decode(stored)
    counts = count_labels(labels, stored, wrong, len(dataset.classes))
    if not wrong.any():
        return counts, []
    found = count_values(stored[wrong])
    values = ", ".join(f"{dataset.codes.shown(value)} ({pixels} pixels)" for value, pixels in list(found.items())[:8])
    more = f", and {len(found) - 8} more values" if len(found) > 8 else ""
    return counts, [Problem(split, "out of range", f"{path}: {values}{more}; wanted {dataset.codes}")]


def _of_split(labels: Mapping[str, LabelReport], training: bool, whole: bool = True) -> list[str]:
    """What the label maps of a split show together: of the one to train on everything, of others that all is void."""
    found = []
    for task, report in labels.items():
        if training or (report.void and not report.pixels.any()):
            found += [f"{task}: {what}" if task else what for what in findings(report, whole=whole)]
    return found


def _check_split(name: str, dataset: SegmentationDataset, progress: bool) -> SplitReport:
    tasks = {task: cast(FileDataset, part) for task, part in dataset.tasks.items()}
    first = next(iter(tasks.values()))
    names = [image.stem for image, _ in first.pairs]
    labels = {task: LabelReport(part) for task, part in tasks.items()}
    report = SplitReport(names, labels, notes=dataset.notes)
    report.problems += [
        Problem(name, "twice", f"{stem} is {times} times in this split")
        for stem, times in Counter(names).items()
        if times > 1
    ]
    report.problems += [Problem(name, "unusable", what) for part in tasks.values() for what in odd_masks(part)]
    # Threads: decoding, which is most of the work, does not hold Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = pool.map(lambda index: _look(name, list(tasks.values()), index), range(len(dataset)))
        bar = tqdm(
            looks, desc=f"check {name}", total=len(dataset), unit="image", disable=not progress, dynamic_ncols=True
        )
        for found, problems in bar:
            report.problems += problems
            for part, counts in zip(report.labels.values(), found, strict=True):
                if counts is not None:
                    part.add(*counts)
    return report


def _look(split: str, tasks: Sequence[FileDataset], index: int) -> tuple[list[Counts | None], list[Problem]]:
    """What the label maps of one image hold, by task, and what is wrong with them and the image."""
    problems: list[Problem] = []
    image = None
    path = tasks[0].pairs[index][0]
    try:
        image = tasks[0].read_pixels(path)
        what = left_out(path)
        if what:
            problems.append(Problem(split, "left out", what))
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
) -> tuple[Counts | None, list[Problem]]:
    label_path = dataset.pairs[index][1]
    problems: list[Problem] = []
    try:
        stored = dataset.read_stored(label_path)
    except DataError as error:
        return None, [Problem(split, "unreadable", str(error))]
    if image is not None and image.shape[:2] != stored.shape:
        problems.append(Problem(split, "size mismatch", sizes_differ(dataset.pairs[index], image, stored)))
    counts, wrong = _count(split, dataset, stored, label_path)
    return counts, problems + wrong


def _split_as_dict(split: SplitReport) -> dict[str, Any]:
    labels = {task: _labels_as_dict(labels) for task, labels in split.labels.items()}
    return {"images": len(split.names), "notes": list(split.notes), **plain(labels)}


def _labels_as_dict(labels: LabelReport) -> dict[str, Any]:
    return {
        "pixels": dict(zip(distinct(labels.classes), labels.pixels.tolist(), strict=True)),
        "images_with": dict(zip(distinct(labels.classes), labels.images.tolist(), strict=True)),
        "void": {str(value): count for value, count in labels.void.items()},
    }
