"""Weights: this program's files, and those of others."""

from .convert import convert, load_pretrained_backbone
from .files import Weights, load_weights, save_weights

__all__ = ["Weights", "convert", "load_pretrained_backbone", "load_weights", "save_weights"]
