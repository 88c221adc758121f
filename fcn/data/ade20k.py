"""ADE20K (Zhou et al. 2017) as the scene parsing challenge has it: 150 classes."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
from .dataset import FileDataset
from .labels import Codes
from .listing import pairs_in, read_names
from .palette import voc_palette

FOLDERS = {"train": "training", "val": "validation"}


def ade20k(root: Path, split: str) -> FileDataset:
    """ADE20K, the scene parsing benchmark: 150 classes.

    ``images/<split>/*.jpg`` and ``annotations/<split>/*.png``; ``train`` and ``val`` mean ``training`` and
    ``validation``. Names of classes: the last column of ``objectInfo150.txt``; where it is missing, numbers.
    """
    folder = FOLDERS.get(split, split)
    classes = _classes(root / "objectInfo150.txt")
    pairs = pairs_in(root / "images" / folder, root / "annotations" / folder)
    return FileDataset(pairs, classes, voc_palette(150), Codes.counted(150, first=1, void=0))


def _classes(path: Path) -> list[str]:
    if not path.exists():
        return [f"class {number}" for number in range(1, 151)]
    names = [line.split("\t")[-1].split(",")[0] for line in read_names(path)[1:]]
    if len(names) != 150:
        raise DataError(f"{path}: wanted a heading and 150 classes, got {len(names)} classes")
    return names
