"""GoogLeNet (Szegedy et al. 2015) in the geometry of Caffe's BVLC GoogLeNet, without its auxiliary classifiers."""

from __future__ import annotations

from ..geometry import Layer
from .architecture import Architecture

# Channels of the branches: 1x1; 3x3 after its reduction; 5x5 after its reduction; projection of the pooled input.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED = {"3b": "pool3/3x3_s2", "4e": "pool4/3x3_s2"}
"""The pooling that ends a stage."""


def _conv(name: str, channels: int, kernel_size: int = 1, stride: int = 1, source: str = "") -> Layer:
    inputs = (source,) if source else ()
    return Layer(name, "conv", channels, kernel_size, stride, kernel_size // 2, inputs=inputs, then=("relu",))


def _inception(module: str, source: str, source_channels: int, largest: int) -> list[Layer]:
    ones, threes_reduced, threes, fives_reduced, fives, projected = INCEPTIONS[module]
    name = f"inception_{module}"
    branches = (f"{name}/1x1", f"{name}/3x3", f"{name}/5x5", f"{name}/pool_proj")
    return [
        _conv(f"{name}/1x1", ones, source=source),
        _conv(f"{name}/3x3_reduce", threes_reduced, source=source),
        _conv(f"{name}/3x3", threes, 3),
        _conv(f"{name}/5x5_reduce", fives_reduced, source=source),
        _conv(f"{name}/5x5", fives, largest),
        Layer(f"{name}/pool", "pool", source_channels, 3, padding=1, inputs=(source,)),
        _conv(f"{name}/pool_proj", projected),
        Layer(f"{name}/output", "concat", ones + threes + fives + projected, inputs=branches),
    ]


def _googlenet(torchvision: bool) -> Architecture:
    layers = [
        _conv("conv1/7x7_s2", 64, 7, 2),
        Layer("pool1/3x3_s2", "pool", 64, 3, 2),
        Layer("pool1/norm1", "lrn", 64),
        _conv("conv2/3x3_reduce", 64),
        _conv("conv2/3x3", 192, 3),
        Layer("conv2/norm2", "lrn", 192),
        Layer("pool2/3x3_s2", "pool", 192, 3, 2),
    ]
    stride4 = "conv2/3x3" if torchvision else "conv2/norm2"
    if torchvision:
        layers = [layer for layer in layers if layer.kind != "lrn"]
    for module in INCEPTIONS:
        layers += _inception(module, layers[-1].name, layers[-1].channels, 3 if torchvision else 5)
        if module in POOLED:
            size = 2 if torchvision and module == "4e" else 3
            layers.append(Layer(POOLED[module], "pool", layers[-1].channels, size, 2))
    layers.append(Layer("pool5/7x7_s1", "avg_pool", layers[-1].channels, 7, then=("dropout",)))
    layers.append(Layer("loss3/classifier", "linear", 1000))
    taps = ("pool5/7x7_s1", "inception_4e/output", "inception_3b/output", stride4)
    return Architecture(tuple(layers), 224, taps, official_padding=None)


GOOGLENET = _googlenet(torchvision=False)
"""The paper's own FCN-GoogLeNet was never published; its official padding is that of the classifier."""

GOOGLENET_TORCHVISION = _googlenet(torchvision=True)
"""The network that torchvision has weights of, under Caffe's names, its batch normalization folded into convolutions:
no local response normalization, the branches called 5x5 are 3x3, the fourth pooling is 2x2."""
