"""Weights: this program's files, and those of others."""

from .convert import convert
from .files import Weights, load_weights, save_weights
from .start import load_pretrained_backbone, start_from

__all__ = ["Weights", "convert", "load_pretrained_backbone", "load_weights", "save_weights", "start_from"]
