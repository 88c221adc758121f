"""What every data set is to the rest of the system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..errors import DataError
from .files import VOID, read_image
from .labels import Codes, read_indices
from .listing import Pair
from .opening import orientation
from .palette import Color
from .preprocessing import Preprocessing


class Sample(TypedDict):
    image: np.ndarray  # uint8 or uint16 [H, W, 3] or [H, W]; with further channels uint8 or float32 [H, W, C]
    target: np.ndarray  # uint8 [H, W], 255 = void; of several tasks [T, H, W]
    name: str


class SegmentationDataset:
    """Images with label maps: ``dataset[i]`` is a ``Sample``; void is 255 whatever the source."""

    ignore_index = VOID
    classes: list[str]
    palette: list[Color]
    published: Preprocessing | None = None
    """What the published networks for these data were given; None where there are none."""
    notes: Sequence[str] = ()
    """What was understood of files that could mean something else, a line each."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    @property
    def tasks(self) -> Mapping[str, SegmentationDataset]:
        """The same images with the labels of each task, by its name; that of a single one is empty."""
        return {"": self}


@dataclass
class FileDataset(SegmentationDataset):
    """Pairs of image and label files; reading checks sizes and label range.

    codes: what the stored values mean; the default is class indices and 255.
    read_stored: the integers ``[H, W]`` of a label file. read_pixels: the image of an image file.
    classes_from: the file or the masks that say which classes there are; empty where the data set's authors do.
    """

    pairs: Sequence[Pair]
    classes: list[str]
    palette: list[Color]
    codes: Codes = None  # type: ignore[assignment]
    read_stored: Callable[[Path], np.ndarray] = read_indices
    read_pixels: Callable[[Path], np.ndarray] = read_image
    published: Preprocessing | None = field(default=None, kw_only=True)
    notes: Sequence[str] = field(default=(), kw_only=True)
    classes_from: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if self.codes is None:
            self.codes = Codes.counted(len(self.classes))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image_path, target_path = self.pairs[index]
        image = self.read_pixels(image_path)
        target = self.codes(self.read_stored(target_path), target_path)
        if image.shape[:2] != target.shape:
            raise DataError(sizes_differ(self.pairs[index], image, target))
        return {"image": image, "target": target, "name": image_path.stem}


def files_of(dataset: SegmentationDataset, root: str | None) -> list[Path]:
    """Files that a data set reads: images, label maps, and lists, tables and names in its folder ``root``."""
    parts = [part for part in dataset.tasks.values() if isinstance(part, FileDataset)]
    tables = (".txt", ".csv", ".mat")
    beside = [path for path in Path(root).expanduser().iterdir() if path.suffix in tables] if root else []
    return [*beside, *(path for part in parts for pair in part.pairs for path in pair)]


def sizes_differ(pair: Pair, image: np.ndarray, target: np.ndarray) -> str:
    """The message for an image and a label map of different sizes."""
    message = (
        f"{pair[1]}: the label map is {target.shape[1]}x{target.shape[0]} and its image "
        f"{pair[0].name} is {image.shape[1]}x{image.shape[0]} (width x height): sizes must be equal"
    )
    if image.shape[:2] == target.shape[::-1] and orientation(pair[0]) >= 5:
        message += (
            "; the image was turned by its EXIF orientation, as viewers do, and the label map is for the picture as "
            "stored: remove the orientation from the image"
        )
    return message


class TaskDataset(SegmentationDataset):
    """Several label maps of the same images, by name of the task: targets ``[T, H, W]``.

    ``classes`` and ``palette`` are those of all tasks in a row, as the scores of ``ModelConfig.tasks`` are.
    """

    def __init__(self, tasks: Mapping[str, SegmentationDataset]) -> None:
        self._tasks = dict(tasks)
        parts = list(tasks.values())
        if len({len(part) for part in parts}) != 1:
            raise DataError(f"tasks must have the same images, got {[len(part) for part in parts]} of them")
        self.classes = [name for part in parts for name in part.classes]
        self.palette = [color for part in parts for color in part.palette]
        self.published = parts[0].published
        self.notes = [note for part in parts for note in part.notes]

    @property
    def tasks(self) -> Mapping[str, SegmentationDataset]:
        return self._tasks

    def __len__(self) -> int:
        return len(next(iter(self.tasks.values())))

    def __getitem__(self, index: int) -> Sample:
        samples = [part[index] for part in self.tasks.values()]
        if len({sample["name"] for sample in samples}) != 1:
            raise DataError(f"tasks must have the same images, got {[sample['name'] for sample in samples]}")
        return {**samples[0], "target": np.stack([sample["target"] for sample in samples])}


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
