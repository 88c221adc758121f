"""The demo's data: brain tissue in coronal slices of one averaged head.

The image is the ICBM152 (MNI152) T1 template with the skull removed, an average over 152 people, made symmetric, at
1 mm; the labels come from its grey and white matter probability maps. All are files inside the ``nilearn`` package, so
nothing is downloaded. It is ONE averaged head: a score says that training and prediction work, and how much detail a
network keeps; it says nothing about other heads.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..errors import DataError
from .dataset import ArrayDataset, Sample
from .palette import Color

CLASSES = ["background", "CSF", "grey matter", "white matter"]
PALETTE: list[Color] = [(0, 0, 0), (60, 120, 220), (230, 130, 60), (245, 235, 200)]

# Coronal slices (1 mm apart) in a repeating pattern. Two slices are left out between sets, since neighbors look alike.
# Sets are never divided left against right: the template is its own mirror image.
PATTERN = ["train"] * 24 + ["-"] * 2 + ["val"] * 4 + ["-"] * 2 + ["test"] * 6 + ["-"] * 2
FIRST, LAST = 28, 206  # slices that hold brain
ROWS, COLUMNS = slice(0, 160), slice(15, 175)  # the part of each slice that holds brain, with a margin
# Slices are enlarged: cortex is 2 to 4 mm thick, and the coarsest network has one score for each 32 pixels.
ENLARGE = 5


def slices(split: str) -> list[int]:
    """Indices of the coronal slices of ``split``: ``train``, ``val`` or ``test``."""
    if split not in ("train", "val", "test"):
        raise DataError(f"mri: split '{split}' not found; wanted train, val or test")
    return [y for y in range(FIRST, LAST + 1) if PATTERN[(y - FIRST) % len(PATTERN)] == split]


def mri(split: str) -> ArrayDataset:
    """Coronal slices, gray uint8 ``[800, 800]``, with background / CSF / grey / white labels.

    A pixel inside the brain mask belongs to the tissue with the largest probability among grey, white and the rest,
    1 - grey - white, which inside the mask is fluid (CSF). Image, probabilities and mask are enlarged (bilinear) before
    that choice. Raises ``DataError`` if ``nilearn`` is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError:
        raise DataError("the MRI data come with nilearn, which is not installed: pip install nilearn") from None
    volumes = [
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    ]
    samples = [_sample(y, *(_plane(volume[:, y]) for volume in volumes)) for y in slices(split)]
    return ArrayDataset(samples, list(CLASSES), list(PALETTE))


def _sample(y: int, image: np.ndarray, grey: np.ndarray, white: np.ndarray, brain: np.ndarray) -> Sample:
    tissue = 1 + np.stack([1 - grey - white, grey, white]).argmax(0)
    target = np.where(brain > 0.5, tissue, 0).astype(np.uint8)
    return {"image": np.rint(image * 255).astype(np.uint8), "target": target, "name": f"coronal_{y:03d}"}


def _plane(plane: np.ndarray) -> np.ndarray:
    """[x, z] with z upward -> rows from the top of the head down, enlarged."""
    upright = Image.fromarray(np.ascontiguousarray(plane[COLUMNS, ROWS].T[::-1]))
    size = (upright.width * ENLARGE, upright.height * ENLARGE)
    return np.asarray(upright.resize(size, Image.Resampling.BILINEAR))
