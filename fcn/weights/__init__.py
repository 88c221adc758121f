"""Weights: this program's files, and those of others."""

from .convert import convert
from .files import Weights, load_weights, save_weights, weights_file
from .start import load_pretrained_backbone, prepared_for, start_from

__all__ = [
    "Weights",
    "convert",
    "load_pretrained_backbone",
    "load_weights",
    "prepared_for",
    "save_weights",
    "start_from",
    "weights_file",
]
