"""EfficientNet-Lite 0 to 2: EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6.

Its convolutions pad as TensorFlow's ``SAME`` does for the classifier's own images: with a stride of 2, maps of even
size get one zero more at the end than at the start. That makes ``pad="official"`` the trained network exactly.
``pad="same"`` pads both ends alike: inside the image the same function on samples that lie one cell earlier, which the
coordinate maps account for; only at the borders do values differ.

Stochastic depth, a regularizer of the training on ImageNet, is left out.
"""

from __future__ import annotations

import math

from ..geometry import Layer, Pointwise
from .architecture import Architecture

# Of each stage: blocks, kernel size, stride of the first block, expansion, channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280
"""Channels of the first and of the last convolution, which all sizes of the network share."""
EPSILON = 1e-3


def _width(channels: int, factor: float) -> int:
    """``channels`` times ``factor``, to a multiple of 8 that is at least nine tenths of it."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def efficientnet_lite(width: float, depth: float, image_size: int) -> Architecture:
    """Stages of inverted residual blocks: expansion 1x1, a filter for each channel, projection 1x1, and the input added
    where it has the same shape. ``width`` and ``depth`` scale the channels and the number of blocks of a stage."""
    layers: list[Layer] = []
    size, channels = image_size, 3
    relu6: tuple[Pointwise, ...] = ("batch_norm", "relu6")

    def conv(
        name: str, out: int, kernel_size: int = 1, stride: int = 1, groups: int = 1, then: tuple[Pointwise, ...] = relu6
    ) -> None:
        nonlocal size, channels
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        layers.append(
            Layer(
                name,
                "conv",
                out,
                kernel_size,
                stride,
                total // 2,
                groups=groups,
                then=then,
                end_padding=total % 2,
                epsilon=EPSILON,
            )
        )
        size, channels = -(-size // stride), out

    conv("stem", STEM, 3, 2)
    number, skips, total_stride = 0, {}, 2
    for index, (blocks, kernel_size, first_stride, expansion, out) in enumerate(STAGES):
        if 0 < index < len(STAGES) - 1:
            blocks = math.ceil(blocks * depth)
        for block in range(blocks):
            name, stride, before = f"block{number}", first_stride if block == 0 else 1, layers[-1]
            if expansion > 1:
                conv(f"{name}/expand", channels * expansion)
            conv(f"{name}/depthwise", channels, kernel_size, stride, groups=channels)
            conv(f"{name}/project", _width(out, width), then=("batch_norm",))
            if stride == 1 and channels == before.channels:
                layers.append(Layer(f"{name}/sum", "sum", channels, inputs=(before.name, layers[-1].name)))
            total_stride *= stride
            skips[total_stride] = layers[-1].name
            number += 1
    conv("head", HEAD)
    layers.append(Layer("pool", "avg_pool", HEAD, size, then=("dropout",)))
    layers.append(Layer("fc", "linear", 1000))
    return Architecture(tuple(layers), image_size, ("pool", skips[16], skips[8], skips[4]), official_padding=None)


EFFICIENTNET_LITE0 = efficientnet_lite(1.0, 1.0, 224)
EFFICIENTNET_LITE1 = efficientnet_lite(1.0, 1.1, 240)
EFFICIENTNET_LITE2 = efficientnet_lite(1.1, 1.2, 260)
