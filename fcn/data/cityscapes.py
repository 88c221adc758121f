"""Cityscapes (Cordts et al. 2016), fine labels, in the 19 classes that are scored."""

from __future__ import annotations

from pathlib import Path

from .dataset import FileDataset
from .labels import Codes
from .listing import folder_of, match
from .palette import Color

CITYSCAPES: list[tuple[int, str, Color]] = [
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
]
"""Stored value, name and color of each class."""
IMAGE, LABELS = "_leftImg8bit", "_gtFine_labelIds"


def cityscapes(root: Path, split: str) -> FileDataset:
    """Cityscapes: streets of 50 cities, 19 classes.

    ``leftImg8bit/<split>/<city>/*_leftImg8bit.png``, ``gtFine/<split>/<city>/*_gtFine_labelIds.png``.
    """
    folders = (folder_of(root / "leftImg8bit" / split), folder_of(root / "gtFine" / split))
    images, labels = (
        {path.stem.removesuffix(suffix): path for path in sorted(folder.glob(f"*/*{suffix}.png"))}
        for folder, suffix in zip(folders, (IMAGE, LABELS), strict=True)
    )
    values = {value: label for label, (value, _, _) in enumerate(CITYSCAPES)}
    void = {-1, *range(34), 255} - set(values)
    return FileDataset(
        match(images, labels, folders, list(images)),
        [name for _, name, _ in CITYSCAPES],
        [color for _, _, color in CITYSCAPES],
        Codes(values, void),
    )
