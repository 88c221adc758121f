"""SIFT Flow (Liu et al. 2009): outdoor scenes with two label maps each, 33 semantic and 3 geometric classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .dataset import FileDataset, TaskDataset
from .labels import Codes, read_mat
from .listing import pairs_in, split_names
from .palette import voc_palette
from .preprocessing import Preprocessing

SEMANTIC_CLASSES = [
    "awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert", "door",
    "fence", "field", "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock", "sand", "sea",
    "sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree", "window",
]  # fmt: skip
GEOMETRIC_CLASSES = ["sky", "horizontal", "vertical"]
TASKS = {"semantic": SEMANTIC_CLASSES, "geometric": GEOMETRIC_CLASSES}
SCENES = "spatial_envelope_256x256_static_8outdoorcategories"
PUBLISHED = Preprocessing((114.578, 115.294, 108.353), (1.0,) * 3, "bgr", 1.0)
"""What the authors' networks for these data were given."""


def siftflow(root: Path, split: str) -> FileDataset:
    """SIFT Flow: scenes outdoors, 33 semantic classes.

    ``Images/<scenes>/ID.jpg``, ``SemanticLabels/<scenes>/ID.mat`` and ``<split>.txt``: ``trainval`` and ``test``.
    """
    return _siftflow(root, split, "SemanticLabels", SEMANTIC_CLASSES, void=0)


def siftflow_geometric(root: Path, split: str) -> FileDataset:
    """SIFT Flow: its 3 geometric classes.

    ``GeoLabels/<scenes>/ID.mat`` in place of the semantic labels.
    """
    return _siftflow(root, split, "GeoLabels", GEOMETRIC_CLASSES, void=-1)


def siftflow_tasks(root: Path, split: str) -> TaskDataset:
    """SIFT Flow: semantic and geometric classes, for networks of two tasks."""
    return TaskDataset({"semantic": siftflow(root, split), "geometric": siftflow_geometric(root, split)})


def _siftflow(root: Path, split: str, labels: str, classes: list[str], void: int) -> FileDataset:
    pairs = pairs_in(root / "Images" / SCENES, root / labels / SCENES, split_names(root, split), (".mat",))
    return FileDataset(
        pairs,
        list(classes),
        voc_palette(len(classes)),
        Codes.counted(len(classes), first=1, void=void),
        partial(read_mat, keys=("S",)),
        published=PUBLISHED,
    )
