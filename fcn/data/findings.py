"""What label maps hold, and whether a network could learn what is meant from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import FileDataset, SegmentationDataset
from .files import VOID
from .labels import few_bits

MANY_CLASSES = 100
"""More than this counted from masks alone are stray values rather than classes."""
LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".webp", ".avif")


class LabelReport:
    """What label maps hold; ``pixels``, ``inside`` and ``images`` are ``[C]``: pixels of each class, those whose four
    neighbors have it too, and images that have it."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.classes = dataset.classes
        self.classes_from = getattr(dataset, "classes_from", "")
        self.pixels, self.inside, self.images = (np.zeros(len(self.classes), np.int64) for _ in range(3))
        self.void: Counter[int] = Counter()
        """Pixels by the stored value that stands for void."""
        self.maps = 0

    def add(self, pixels: np.ndarray, inside: np.ndarray, void: Counter[int]) -> None:
        """What one label map holds."""
        self.pixels += pixels
        self.inside += inside
        self.images += pixels > 0
        self.void.update(void)
        self.maps += 1


Counts = tuple[np.ndarray, np.ndarray, Counter[int]]
"""The arguments of ``LabelReport.add``."""


def count_labels(labels: np.ndarray, stored: np.ndarray, wrong: np.ndarray, classes: int) -> Counts:
    """Of one map: labels uint8 ``[H, W]``, the values they were made from, and where those mean nothing."""
    same = np.ones(labels.shape, bool)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        equal = labels[a] == labels[b]
        same[a] &= equal
        same[b] &= equal
    pixels, inside = (np.bincount(x.ravel(), minlength=VOID + 1)[:classes] for x in (labels, labels[same]))
    return pixels, inside, count_values(stored[(labels == VOID) & ~wrong])


def count_values(values: np.ndarray) -> Counter[int]:
    found, counts = np.unique(values, return_counts=True)
    return Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))


def findings(labels: LabelReport, *, whole: bool = True) -> list[str]:
    """Why nothing, or something else than meant, would be learned from the label maps of a training split.

    whole: whether they are all of the split, or some of it.
    """
    present = np.flatnonzero(labels.pixels)
    absent = len(labels.classes) - len(present)
    names = [labels.classes[index] for index in present]
    if not len(present):
        return ["every pixel is void: there is nothing to learn"] if labels.void else []
    if labels.classes_from and len(present) == 1:
        return [_one_class(labels, names[0])]
    found = []
    edges = [index for index in _at_edges(labels) if labels.classes_from]
    if edges:
        found.append(
            f"{len(edges)} classes ({_some([labels.classes[index] for index in edges])}) occur only where others meet: "
            f"values blended by compression or resizing; save masks as PNG, and resize them without blending"
            + ("; 255 is void, so that objects stored as 255 are left out" if VOID in labels.void else "")
        )
    counted = labels.classes_from == "masks"
    if counted and len(labels.classes) > MANY_CLASSES:
        found.append(f"{len(labels.classes)} classes, counted from the largest value in the masks, are more than usual")
    sure = whole or (counted and 2 * len(present) < len(labels.classes))
    if labels.classes_from and absent and sure:
        missing = [name for index, name in enumerate(labels.classes) if not labels.pixels[index]]
        found.append(
            f"{absent} of {len(labels.classes)} classes have no pixel: {_some(missing)}"
            + (f"; {_way_out(present.tolist(), labels)}" if counted else "")
        )
    return found


def odd_masks(dataset: FileDataset, step: int = 1) -> list[str]:
    """Masks, of every ``step``-th image, in formats that change values or that programs read in different ways: the
    first of each kind."""
    found = []
    lossy = [mask for _, mask in dataset.pairs if mask.suffix.lower() in LOSSY and not _is_lossless(mask)]
    if lossy:
        found.append(f"{lossy[0]}: {len(lossy)} masks are in a format that changes values; save them as PNG")
    png = [mask for _, mask in dataset.pairs[::step] if mask.suffix.lower() in (".png", ".tif", ".tiff")]
    return found + list(islice(filter(None, map(_few_bits, png)), 1))


def _few_bits(path: Path) -> str | None:
    try:
        return few_bits(path)
    except DataError:
        return None  # reading it will say so


def _is_lossless(path: Path) -> bool:
    """WebP says so in its first chunk."""
    with path.open("rb") as file:
        return b"VP8L" in file.read(64)


def _at_edges(labels: LabelReport) -> list[int]:
    """Classes none of whose pixels lies inside, between others that occur, where most pixels do lie inside."""
    present = np.flatnonzero(labels.pixels)
    if 2 * labels.inside.sum() < labels.pixels.sum():
        return []
    last = VOID if labels.void else present[-1]
    return [int(index) for index in present if not labels.inside[index] and present[0] < index < last]


def _one_class(labels: LabelReport, name: str) -> str:
    void = sorted(labels.void)
    if labels.classes_from == "masks" and void == [VOID]:
        return (
            "masks hold 0 and 255 alone, and 255 is void: there is one class, and nothing to learn. Where 255 is the "
            f"object, {_way_out([0, VOID], labels)}"
        )
    return f"one class only ({name}): there is nothing to learn"


def _way_out(values: Sequence[int], labels: LabelReport) -> str:
    lines = [f"'NAME{number}:{value},{value},{value}'" for number, value in enumerate(values[:4])]
    given = [f"NAME{number}: {value}" for number, value in enumerate(values[:4])]
    more = " ..." if len(values) > 4 else ""
    return (
        f"a file labelmap.txt beside the folders says what values mean, with the lines {' '.join(lines)}{more}; or "
        f"--data.classes '{{{', '.join(given)}{more}}}'"
    )


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
