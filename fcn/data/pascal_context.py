"""PASCAL-Context (Mottaghi et al. 2014): all of VOC2010's photographs, in 59 classes and background."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..errors import DataError
from .dataset import FileDataset
from .labels import Codes, read_mat
from .listing import pairs_in, read_names, split_names
from .palette import voc_palette
from .preprocessing import CAFFE_VGG

# What three of the 59 are called among the 459 names of the label files.
OTHER_NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


def pascal_context(root: Path, split: str) -> FileDataset:
    """PASCAL-Context in 60 classes: 59, and background.

    Background is class 0, trained and scored: all that is none of the others; nothing is void.
    ``VOC2010/JPEGImages/ID.jpg``, ``VOC2010/ImageSets/Main/<split>.txt``, and in ``pascal-context``:
    ``trainval/ID.mat``, ``labels.txt`` and ``59_labels.txt`` ("number: name").
    """
    dataset, values = _read(root, split)
    dataset.codes = Codes({value: values.get(value, 0) for value in dataset.codes.classes}, void=())
    return dataset


def pascal_context59(root: Path, split: str) -> FileDataset:
    """PASCAL-Context in 59 classes: background is void."""
    dataset, values = _read(root, split)
    void = set(dataset.codes.classes) - set(values)
    dataset.codes = Codes({value: label - 1 for value, label in values.items()}, void)
    dataset.classes, dataset.palette = dataset.classes[1:], dataset.palette[1:]
    return dataset


def _read(root: Path, split: str) -> tuple[FileDataset, dict[int, int]]:
    """The data set with its 60 classes, and the class 1 to 59 of the stored values that have one."""
    photographs, context = root / "VOC2010", root / "pascal-context"
    names = split_names(photographs / "ImageSets" / "Main", split)
    pairs = pairs_in(photographs / "JPEGImages", context / "trainval", names, (".mat",))
    stored = _numbered_names(context / "labels.txt")
    classes = [name for name in _numbered_names(context / "59_labels.txt") if name != "background"]
    values = {}
    for label, name in enumerate(classes, start=1):
        found = OTHER_NAMES.get(name, name)
        if found not in stored:
            raise DataError(f"{context / 'labels.txt'}: class '{found}' of 59_labels.txt is missing")
        values[stored.index(found) + 1] = label
    dataset = FileDataset(
        pairs,
        ["background", *classes],
        voc_palette(len(classes) + 1),
        Codes.counted(len(stored) + 1),
        partial(read_mat, keys=("LabelMap",)),
        published=CAFFE_VGG,
    )
    return dataset, values


def _numbered_names(path: Path) -> list[str]:
    """Names of "number: name" lines, without spaces."""
    return [line.partition(":")[2].replace(" ", "") for line in read_names(path)]
