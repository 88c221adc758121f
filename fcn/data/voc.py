"""PASCAL VOC 2011 and 2012, and SBD, the further labels of the same photographs (Hariharan et al. 2011)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .dataset import FileDataset
from .labels import Codes, read_mat
from .listing import pairs_in, split_names
from .palette import voc_palette
from .preprocessing import CAFFE_VGG

VOC_CLASSES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip


def voc(root: Path, split: str) -> FileDataset:
    """PASCAL VOC 2011 or 2012: photographs, 21 classes.

    ``JPEGImages``, ``SegmentationClass`` and ``ImageSets/Segmentation/<split>.txt``.
    ``seg11valid`` and lists that are joined or taken away: see ``split_names``.
    """
    names = split_names(root / "ImageSets" / "Segmentation", split)
    pairs = pairs_in(root / "JPEGImages", root / "SegmentationClass", names)
    return FileDataset(pairs, list(VOC_CLASSES), voc_palette(len(VOC_CLASSES)), published=CAFFE_VGG)


def sbd(root: Path, split: str) -> FileDataset:
    """SBD: more labels of VOC's photographs and classes.

    ``benchmark_RELEASE/dataset`` with ``img/*.jpg``, ``cls/*.mat`` and lists.

    SBD's ``train`` holds images of VOC's ``val``: scores on that are fair only after training on
    ``train+val-voc2012val``, or on ``train+val-seg11valid`` for the papers' ``seg11valid``.
    """
    base = root / "benchmark_RELEASE" / "dataset"
    pairs = pairs_in(base / "img", base / "cls", split_names(base, split), (".mat",))
    classes = len(VOC_CLASSES)
    return FileDataset(
        pairs, list(VOC_CLASSES), voc_palette(classes), Codes.counted(classes), _read_sbd, published=CAFFE_VGG
    )


_read_sbd = partial(read_mat, keys=("GTcls", "Segmentation"))
