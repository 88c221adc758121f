"""Data sets, augmentation and batches."""

from .ade20k import ade20k
from .augment import Augmentation
from .batches import Batch, Group, ShuffledBatches, collate, evaluation_loader, training_loader
from .camvid import camvid
from .cityscapes import cityscapes
from .dataset import ArrayDataset, FileDataset, Sample, SegmentationDataset, TaskDataset, files_of
from .files import VOID, ImageLike, read_image, to_array
from .folders import folder
from .further import FURTHER, Further, FurtherFolder, joined
from .labels import Codes, read_labels, write_labels
from .mri import mri
from .nyud import nyud, nyud_color_depth, nyud_color_hha, nyud_hha
from .palette import Color, voc_palette
from .pascal_context import pascal_context, pascal_context59
from .registry import KINDS, Kind, recognize
from .siftflow import siftflow, siftflow_geometric, siftflow_tasks
from .sources import Source, find_sources, read_frames
from .voc import sbd, voc

__all__ = [
    "FURTHER",
    "KINDS",
    "VOID",
    "ArrayDataset",
    "Augmentation",
    "Batch",
    "Codes",
    "Color",
    "FileDataset",
    "Further",
    "FurtherFolder",
    "Group",
    "ImageLike",
    "Kind",
    "Sample",
    "SegmentationDataset",
    "ShuffledBatches",
    "Source",
    "TaskDataset",
    "ade20k",
    "camvid",
    "cityscapes",
    "collate",
    "evaluation_loader",
    "files_of",
    "find_sources",
    "folder",
    "joined",
    "mri",
    "nyud",
    "nyud_color_depth",
    "nyud_color_hha",
    "nyud_hha",
    "pascal_context",
    "pascal_context59",
    "read_frames",
    "read_image",
    "read_labels",
    "recognize",
    "sbd",
    "siftflow",
    "siftflow_geometric",
    "siftflow_tasks",
    "to_array",
    "training_loader",
    "voc",
    "voc_palette",
    "write_labels",
]
