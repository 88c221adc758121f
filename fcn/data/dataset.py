"""What every data set is to the rest of the system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from .files import VOID, DataError, read_image, read_labels
from .palette import Color


class Sample(TypedDict):
    image: np.ndarray  # uint8 [H, W, 3] or [H, W]
    target: np.ndarray  # uint8 [H, W], 255 = void
    name: str


class SegmentationDataset:
    """Images with label maps: ``dataset[i]`` is a ``Sample``; void is 255 whatever the source."""

    ignore_index = VOID
    classes: list[str]
    palette: list[Color]

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError


@dataclass
class FileDataset(SegmentationDataset):
    """Pairs of image and label files. ``pairs`` holds (image, label map); reading checks sizes and label range."""

    pairs: Sequence[tuple[Path, Path]]
    classes: list[str]
    palette: list[Color]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, target_path = self.pairs[index]
        image = read_image(image_path)
        target = read_labels(target_path, len(self.classes))
        if image.shape[:2] != target.shape:
            raise DataError(
                f"{target_path}: the label map is {target.shape[1]}x{target.shape[0]} and its image "
                f"{image_path.name} is {image.shape[1]}x{image.shape[0]} (width x height): sizes must be equal"
            )
        return {"image": image, "target": target, "name": image_path.stem}


@dataclass
class ArrayDataset(SegmentationDataset):
    """Samples held in memory."""

    samples: Sequence[Sample]
    classes: list[str]
    palette: list[Color]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]
