"""AlexNet (Krizhevsky et al. 2012) as Caffe's reference network "CaffeNet" has it: pooling before normalization."""

from __future__ import annotations

from ..geometry import Layer
from .architecture import Architecture

_CAFFENET = (
    Layer("conv1", "conv", 96, 11, 4, then=("relu",)),
    Layer("pool1", "pool", 96, 3, 2),
    Layer("norm1", "lrn", 96),
    Layer("conv2", "conv", 256, 5, padding=2, groups=2, then=("relu",)),
    Layer("pool2", "pool", 256, 3, 2),
    Layer("norm2", "lrn", 256),
    Layer("conv3", "conv", 384, 3, padding=1, then=("relu",)),
    Layer("conv4", "conv", 384, 3, padding=1, groups=2, then=("relu",)),
    Layer("conv5", "conv", 256, 3, padding=1, groups=2, then=("relu",)),
    Layer("pool5", "pool", 256, 3, 2),
    Layer("fc6", "linear", 4096, 6, then=("relu", "dropout")),
    Layer("fc7", "linear", 4096, then=("relu", "dropout")),
    Layer("fc8", "linear", 1000),
)
TAPS = ("fc7", "pool2", "pool1", "conv1")
ALEXNET = Architecture(_CAFFENET, 227, TAPS)

_TORCHVISION = (
    Layer("conv1", "conv", 64, 11, 4, 2, then=("relu",)),
    Layer("pool1", "pool", 64, 3, 2),
    Layer("conv2", "conv", 192, 5, padding=2, then=("relu",)),
    Layer("pool2", "pool", 192, 3, 2),
    Layer("conv3", "conv", 384, 3, padding=1, then=("relu",)),
    Layer("conv4", "conv", 256, 3, padding=1, then=("relu",)),
    Layer("conv5", "conv", 256, 3, padding=1, then=("relu",)),
    Layer("pool5", "pool", 256, 3, 2),
    *_CAFFENET[-3:],
)
ALEXNET_TORCHVISION = Architecture(_TORCHVISION, 224, TAPS)
"""The network that torchvision has weights of (Krizhevsky 2014): other widths, no groups, no normalization."""
