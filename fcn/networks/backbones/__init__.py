"""Classifiers that become trunks of fully convolutional networks, by name."""

from __future__ import annotations

from .alexnet import ALEXNET, ALEXNET_TORCHVISION
from .architecture import Architecture
from .efficientnet import EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, EFFICIENTNET_LITE2
from .folding import folded
from .googlenet import GOOGLENET, GOOGLENET_TORCHVISION
from .net import Modalities, Net, convolutionalize
from .traced import Traced, is_traced, register_trunk
from .vgg import SMALL, SMALL_BATCHNORM, VGG16, VGG19

BACKBONES: dict[str, Architecture] = {
    "alexnet": ALEXNET,
    "vgg16": VGG16,
    "vgg19": VGG19,
    "googlenet": GOOGLENET,
    "alexnet_torchvision": ALEXNET_TORCHVISION,
    "googlenet_torchvision": GOOGLENET_TORCHVISION,
    "efficientnet_lite0": EFFICIENTNET_LITE0,
    "efficientnet_lite1": EFFICIENTNET_LITE1,
    "efficientnet_lite2": EFFICIENTNET_LITE2,
    "small": SMALL,
    "small_batchnorm": SMALL_BATCHNORM,
}

__all__ = [
    "BACKBONES",
    "Architecture",
    "Modalities",
    "Net",
    "Traced",
    "convolutionalize",
    "folded",
    "is_traced",
    "register_trunk",
]
