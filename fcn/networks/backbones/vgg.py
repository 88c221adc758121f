"""VGG (Simonyan and Zisserman 2015)."""

from __future__ import annotations

from collections.abc import Sequence

from ..geometry import Layer, Pointwise
from .architecture import Architecture


def vgg(
    widths: Sequence[int],
    depths: Sequence[int],
    fc_width: int = 4096,
    fc_kernel_size: int = 7,
    *,
    batch_norm: bool = False,
    classes: int = 1000,
) -> Architecture:
    """Blocks of 3x3 convolutions, each ended by a 2x2 pooling, then three fully connected layers.

    With ``batch_norm``, a batch normalization follows each 3x3 convolution; not fc6 and fc7, whose maps may be a single
    cell.
    """
    layers: list[Layer] = []
    then: tuple[Pointwise, ...] = ("batch_norm", "relu") if batch_norm else ("relu",)
    for block, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for index in range(1, depth + 1):
            layers.append(Layer(f"conv{block}_{index}", "conv", width, 3, padding=1, then=then))
        layers.append(Layer(f"pool{block}", "pool", width, 2, 2))
    layers += [
        Layer("fc6", "linear", fc_width, fc_kernel_size, then=("relu", "dropout")),
        Layer("fc7", "linear", fc_width, then=("relu", "dropout")),
        Layer("fc8", "linear", classes),
    ]
    return Architecture(tuple(layers), 32 * fc_kernel_size, ("fc7", "pool4", "pool3", "pool2"))


WIDTHS = (64, 128, 256, 512, 512)
VGG16 = vgg(WIDTHS, (2, 2, 3, 3, 3))
VGG19 = vgg(WIDTHS, (2, 2, 4, 4, 4))

SMALL_WIDTHS, SMALL_DEPTHS = (16, 16, 32, 64, 64), (1, 2, 2, 2, 2)
SMALL = vgg(SMALL_WIDTHS, SMALL_DEPTHS, 96, 3)
"""A VGG for CPUs: about 0.2 million parameters, trained from scratch on small images.

Block 1 has a single convolution: at full resolution a second one would cost more than any other layer. fc6 is 3x3:
small images have only a few cells at stride 32, and 7x7 would hold most of the parameters.
"""

SMALL_BATCHNORM = vgg(SMALL_WIDTHS, SMALL_DEPTHS, 96, 3, batch_norm=True)
"""``SMALL`` with batch normalization: better on CamVid, worse on the demo's slices.

Measured with an earlier, larger trunk (two convolutions in block 1): four epochs of FCN-8s on the demo's slices
gave a validation mean IU of 0.68 with it and 0.82 without, five epochs on CamVid a test mean IU of 0.35 and 0.22.
"""
