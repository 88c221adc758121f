"""What labeled images hold: what a training is planned by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .dataset import SegmentationDataset
from .files import VOID
from .resizing import Size, reduced_size, resized_labels

MOST = 200
"""So many images are looked at, spread over the data set."""
THIN = 4
"""A pixel this close to another label is near a boundary, and a class of such pixels is thin."""


@dataclass(frozen=True)
class Survey:
    """images: their number. size: the median height and width; largest: the longest side. gray: no image has colors.
    shares: of each class, its part of the labeled pixels. void: that of the unlabeled ones of all pixels.
    thin: the parts of the pixels of each class that lie near a boundary; nan for a class without pixels.
    """

    images: int
    size: Size
    largest: int
    channels: int
    shares: list[float]
    void: float
    thin: list[float]


def survey(dataset: SegmentationDataset, longest_side: int | None = None) -> Survey:
    """Looks at label maps as the network will see them, no larger than ``longest_side``. Raises ``DataError``."""
    classes = len(dataset.classes)
    counts, near, void = np.zeros(classes), np.zeros(classes), 0
    sizes: list[Size] = []
    step = -(-len(dataset) // MOST)
    for index in range(0, len(dataset), step):
        sample = dataset[index]
        target = sample["target"]
        sizes.append((target.shape[0], target.shape[1]))
        target = resized_labels(target, reduced_size(sizes[-1], longest_side))
        counts += _by_class(target, classes)
        near += _by_class(np.where(_near_boundary(target), target, VOID), classes)
        void += int((target == VOID).sum())
        image = sample["image"]
    with np.errstate(invalid="ignore"):
        thin = near / counts
    height, width = (int(np.median(sides)) for sides in zip(*sizes, strict=True))
    return Survey(
        images=len(dataset),
        size=(height, width),
        largest=max(map(max, sizes)),
        channels=1 if image.ndim == 2 else image.shape[2],
        shares=(counts / max(counts.sum(), 1)).tolist(),
        void=float(void / (counts.sum() + void)),
        thin=thin.tolist(),
    )


def _by_class(target: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(target[target != VOID], minlength=classes)


def _near_boundary(target: np.ndarray) -> np.ndarray:
    """Whether another class lies at most ``THIN`` pixels away; void is none."""
    from scipy.ndimage import maximum_filter, minimum_filter

    void, size = target == VOID, 2 * THIN + 1
    highest = maximum_filter(np.where(void, 0, target), size)
    lowest = minimum_filter(target, size)  # void is larger than every class
    near: np.ndarray = (highest != target) | (lowest != target)
    return near


def described(found: Survey, classes: Sequence[str]) -> list[str]:
    """Lines for people."""
    order = sorted(range(len(classes)), key=lambda index: -found.shares[index])
    shown = [f"{classes[index]} {100 * found.shares[index]:.3g} %" for index in order[:12]]
    more = f", and {len(order) - 12} more" if len(order) > 12 else ""
    void = f"; {100 * found.void:.3g} % of all pixels are void" if found.void else ""
    return [
        f"{found.images} images of about {found.size[1]} x {found.size[0]} pixels",
        f"{len(classes)} classes by their part of the labeled pixels: {', '.join(shown)}{more}{void}",
    ]
