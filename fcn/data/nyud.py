"""NYUDv2 in 40 classes (Silberman et al. 2012; Gupta et al. 2013), as the FCN authors arrange it: color, depth, HHA."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from .dataset import FileDataset
from .files import read_image
from .further import LOG_DEPTH_MEAN, Further, joined
from .labels import Codes, read_mat
from .listing import pairs_in, split_names
from .palette import voc_palette
from .preprocessing import Preprocessing

NYUD_CLASSES = [
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture", "otherprop",
]  # fmt: skip
COLOR_MEAN, HHA_MEAN = (116.190, 97.203, 92.318), (132.431, 94.076, 118.477)  # blue, green, red; file order
PUBLISHED = {
    "color": Preprocessing(COLOR_MEAN, (1.0,) * 3, "bgr", 1.0),
    "hha": Preprocessing(HHA_MEAN, (1.0,) * 3, "rgb", 1.0),
    "color_depth": Preprocessing((*COLOR_MEAN, LOG_DEPTH_MEAN), (1.0,) * 4, "bgr", 1.0),
    "color_hha": Preprocessing((*COLOR_MEAN, *HHA_MEAN), (1.0,) * 6, "bgr", 1.0),
}
"""What the authors' networks are given."""


def nyud(root: Path, split: str) -> FileDataset:
    """NYUDv2, rooms in 40 classes: color.

    ``<root>/data/images/img_ID.png``, ``<root>/segmentation/img_ID.mat``, ``<root>/<split>.txt`` of IDs.

    The papers train on ``train+val``.
    """
    return _nyud(root, split, "images", PUBLISHED["color"])


def nyud_hha(root: Path, split: str) -> FileDataset:
    """NYUDv2: depth as horizontal disparity, height and angle (HHA).

    ``<root>/data/hha/img_ID.png`` in place of the colors.
    """
    return _nyud(root, split, "hha", PUBLISHED["hha"])


def nyud_color_depth(root: Path, split: str) -> FileDataset:
    """NYUDv2: color and the logarithm of the depth, 4 channels, float32.

    Depth in millimeters: ``<root>/data/depth/img_ID.png``.
    """
    return _nyud(root, split, "images", PUBLISHED["color_depth"], "depth")


def nyud_color_hha(root: Path, split: str) -> FileDataset:
    """NYUDv2: color and HHA, 6 channels, uint8."""
    return _nyud(root, split, "images", PUBLISHED["color_hha"], "hha")


def _nyud(root: Path, split: str, first: str, published: Preprocessing, further: Further | None = None) -> FileDataset:
    names = [f"img_{name}" for name in split_names(root, split)]
    pairs = pairs_in(root / "data" / first, root / "segmentation", names, (".mat",))
    return FileDataset(
        pairs,
        list(NYUD_CLASSES),
        voc_palette(len(NYUD_CLASSES)),
        Codes.counted(len(NYUD_CLASSES), first=1, void=0),
        partial(read_mat, keys=("segmentation",)),
        partial(_with_further, kind=further) if further else read_image,
        published=published,
    )


def _with_further(path: Path, kind: Further) -> np.ndarray:
    """The colors at ``path`` and the further channels in the folder beside it."""
    return joined(path, path.parents[1] / kind / path.name, kind)
