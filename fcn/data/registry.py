"""Every data set by the name that recipes and the command line give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .ade20k import ade20k
from .camvid import camvid
from .cityscapes import cityscapes
from .dataset import SegmentationDataset
from .folders import folder
from .nyud import nyud, nyud_color_depth, nyud_color_hha, nyud_hha
from .pascal_context import pascal_context, pascal_context59
from .siftflow import siftflow, siftflow_geometric, siftflow_tasks
from .voc import sbd, voc


@dataclass(frozen=True)
class Kind:
    """marks: paths below the root, any of which tells what it is. splits: those with public labels."""

    load: Callable[[Path, str], SegmentationDataset]
    marks: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("train", "val", "test")


KINDS = {
    "camvid": Kind(camvid, ("train/labels", "trainannot")),
    "voc": Kind(voc, ("ImageSets/Segmentation",), ("train", "val")),
    "sbd": Kind(sbd, ("benchmark_RELEASE/dataset",), ("train", "val")),
    "nyud": Kind(nyud, ("data/images",)),
    "nyud_hha": Kind(nyud_hha),
    "nyud_color_depth": Kind(nyud_color_depth),
    "nyud_color_hha": Kind(nyud_color_hha),
    "siftflow_tasks": Kind(siftflow_tasks, ("GeoLabels",), ("trainval", "test")),
    "siftflow": Kind(siftflow, ("SemanticLabels",), ("trainval", "test")),
    "siftflow_geometric": Kind(siftflow_geometric, (), ("trainval", "test")),
    "pascal_context": Kind(pascal_context, ("pascal-context",), ("train", "val")),
    "pascal_context59": Kind(pascal_context59, (), ("train", "val")),
    "cityscapes": Kind(cityscapes, ("gtFine",), ("train", "val")),
    "ade20k": Kind(ade20k, ("annotations/training",), ("train", "val")),
    "folder": Kind(folder),
}


def recognize(root: Path) -> str:
    """The kind of the data set in a folder; ``folder`` where none of the others is known by its marks."""
    return next((name for name, kind in KINDS.items() if any((root / mark).exists() for mark in kind.marks)), "folder")
