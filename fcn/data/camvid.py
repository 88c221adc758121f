"""CamVid (Brostow et al. 2008), in the 11 classes of SegNet."""

from __future__ import annotations

from pathlib import Path

from .dataset import FileDataset
from .labels import Codes
from .listing import files_in, pairs_in
from .meanings import file_dataset
from .palette import Color

CAMVID_CLASSES = [
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
]  # fmt: skip
CAMVID_PALETTE: list[Color] = [
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
]  # fmt: skip


def camvid(root: Path, split: str) -> FileDataset:
    """CamVid: streets filmed from a car, 11 classes.

    Either of two layouts:

    1. ``<root>/<split>/images``, ``<root>/<split>/labels`` and ``<root>/classes.txt``; void is 255;
    2. SegNet's: ``<root>/<split>`` and ``<root>/<split>annot``; void is 11.
    """
    if (root / f"{split}annot").is_dir():
        pairs = pairs_in(root / split, root / f"{split}annot")
        codes = Codes.counted(len(CAMVID_CLASSES), void=len(CAMVID_CLASSES))
        return FileDataset(pairs, list(CAMVID_CLASSES), list(CAMVID_PALETTE), codes)
    pairs = pairs_in(root / split / "images", root / split / "labels")
    all_masks = (mask for labels in root.glob("*/labels") for mask in files_in(labels).values())
    return file_dataset(pairs, root, all_masks)
