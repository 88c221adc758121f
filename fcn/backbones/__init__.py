"""Trunks of fully convolutional networks, by name."""

from __future__ import annotations

from collections.abc import Callable

from .vgg import VGG, small, small_batchnorm, vgg16

BACKBONES: dict[str, Callable[[str, int, float], VGG]] = {
    "vgg16": vgg16,
    "small": small,
    "small_batchnorm": small_batchnorm,
}
"""``BACKBONES[name](pad, in_channels, dropout)``."""

__all__ = ["BACKBONES", "VGG"]
