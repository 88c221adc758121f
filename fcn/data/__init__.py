"""Data sets, augmentation and batches."""

from .augment import Augmentation
from .batches import Batch, Group, ShuffledBatches, collate, evaluation_loader, training_loader
from .dataset import ArrayDataset, FileDataset, Sample, SegmentationDataset
from .files import VOID, DataError, read_image, read_labels, write_labels
from .folders import camvid, folder, voc
from .mri import mri
from .palette import Color, voc_palette
from .sources import find_files, read_frames

__all__ = [
    "VOID",
    "ArrayDataset",
    "Augmentation",
    "Batch",
    "Color",
    "DataError",
    "FileDataset",
    "Group",
    "Sample",
    "SegmentationDataset",
    "ShuffledBatches",
    "camvid",
    "collate",
    "evaluation_loader",
    "find_files",
    "folder",
    "mri",
    "read_frames",
    "read_image",
    "read_labels",
    "training_loader",
    "voc",
    "voc_palette",
    "write_labels",
]
