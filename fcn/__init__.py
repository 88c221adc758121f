"""Fully Convolutional Networks for Semantic Segmentation (Long, Shelhamer, Darrell; CVPR 2015, TPAMI 2016)."""

from .backbones import convolutionalize
from .inference import Predictor
from .metrics import Metrics, SegmentationMetrics, metrics_from_confusion
from .models import FCN, ModelConfig, build_model, late_fusion
from .preprocessing import Preprocessing
from .rarefaction import rarefy, shift_and_stitch
from .scores import Scores
from .weights import Weights, convert, load_weights, save_weights

__all__ = [
    "FCN",
    "Metrics",
    "ModelConfig",
    "Predictor",
    "Preprocessing",
    "Scores",
    "SegmentationMetrics",
    "Weights",
    "build_model",
    "convert",
    "convolutionalize",
    "late_fusion",
    "load_weights",
    "metrics_from_confusion",
    "rarefy",
    "save_weights",
    "shift_and_stitch",
]
