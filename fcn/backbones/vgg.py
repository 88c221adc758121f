"""Fully convolutional VGG networks: the classifier's fully connected layers become the convolutions fc6 and fc7."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcn_kernels import CoordMap

from ..geometry import Layer, coord_map

PADS = ("same", "official")
FULLY_CONNECTED = ("fc6", "fc7")


def vgg_layers(
    widths: Sequence[int], depths: Sequence[int], fc_width: int, fc_kernel_size: int, pad: str
) -> tuple[Layer, ...]:
    """The layers of a VGG trunk: blocks of 3x3 convolutions, each ended by a 2x2 pooling, then fc6 and fc7.

    ``pad="official"`` pads the first convolution by 100 and fc6 not at all: the published nets' way to make any image
    large enough (CVPR 2015, section 4.1). ``pad="same"`` keeps every convolution's size: half the work at VOC's sizes.
    """
    if pad not in PADS:
        raise ValueError(f"pad must be one of {PADS}, got {pad!r}")
    layers: list[Layer] = []
    for block, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        for index in range(1, depth + 1):
            padding = 100 if pad == "official" and not layers else 1
            layers.append(Layer(f"conv{block}_{index}", "conv", width, 3, 1, padding))
        layers.append(Layer(f"pool{block}", "pool", width, 2, 2))
    layers.append(Layer("fc6", "conv", fc_width, fc_kernel_size, 1, 0 if pad == "official" else fc_kernel_size // 2))
    layers.append(Layer("fc7", "conv", fc_width, 1))
    return tuple(layers)


class VGG(nn.Module):
    """Runs ``layers``, a ReLU after each convolution, and gives the maps that scores are computed from.

    Parameters are named as published (``conv1_1.weight``, ..., ``fc7.bias``) and He-initialized. With ``batch_norm``, a
    batch normalization follows each convolution but fc6 and fc7, whose maps may be a single cell. Maps are kept in
    channels_last, whatever the images are: on a CPU, ``small`` trains in about two thirds of the time, and labels in
    less than half.
    """

    taps = ("fc7", "pool4", "pool3")
    """Layers whose outputs ``forward`` gives, coarsest first: strides 32, 16 and 8."""

    def __init__(self, layers: Sequence[Layer], in_channels: int, dropout: float, *, batch_norm: bool = False) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.layers = tuple(layers)
        self.in_channels = in_channels
        self.dropout = dropout
        channels = in_channels
        for layer in self.layers:
            if layer.kind == "conv":
                normalized = batch_norm and layer.name not in FULLY_CONNECTED
                conv = nn.Conv2d(
                    channels, layer.channels, layer.kernel_size, layer.stride, layer.padding, bias=not normalized
                )
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
                self.add_module(layer.name, conv)
                if normalized:
                    self.add_module(f"{layer.name}_norm", nn.BatchNorm2d(layer.channels))
            channels = layer.channels
        self.batch_norm = batch_norm

    def path(self, tap: str) -> tuple[Layer, ...]:
        """The layers from the image to ``tap``."""
        names = [layer.name for layer in self.layers]
        return self.layers[: names.index(tap) + 1]

    def channels(self, tap: str) -> int:
        return self.path(tap)[-1].channels

    def coord_map(self, tap: str) -> CoordMap:
        """From an index of the map ``tap`` to the image coordinate that it is centered on."""
        return coord_map(self.path(tap))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``[N, in_channels, H, W]`` to ``{tap: [N, channels, h, w]}``, any H, W >= 1."""
        outputs = {}
        # Not contiguous(): for one channel only to() gives the strides by which convolutions recognize the format.
        x = images.to(memory_format=torch.channels_last)
        for layer in self.layers:
            if layer.kind == "pool":
                x = F.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding, ceil_mode=True)
            else:
                x = getattr(self, layer.name)(x)
                if self.batch_norm and layer.name not in FULLY_CONNECTED:
                    x = getattr(self, f"{layer.name}_norm")(x)
                x = F.relu(x, inplace=True)
                if layer.name in FULLY_CONNECTED:
                    x = F.dropout(x, self.dropout, self.training)
            if layer.name in self.taps:
                outputs[layer.name] = x
        return outputs


def vgg16(pad: str, in_channels: int, dropout: float) -> VGG:
    """VGG-16 (Simonyan and Zisserman 2015), 134 million parameters with fc6 and fc7."""
    layers = vgg_layers((64, 128, 256, 512, 512), (2, 2, 3, 3, 3), 4096, 7, pad)
    return VGG(layers, in_channels, dropout)


def small(pad: str, in_channels: int, dropout: float, *, batch_norm: bool = False) -> VGG:
    """A VGG for CPUs: about 0.2 million parameters, trained from scratch on small images.

    Block 1 has a single convolution: at full resolution a second one would cost more than any other layer. fc6 is 3x3:
    small images have only a few cells at stride 32, and 7x7 would hold most of the parameters.
    """
    layers = vgg_layers((16, 16, 32, 64, 64), (1, 2, 2, 2, 2), 96, 3, pad)
    return VGG(layers, in_channels, dropout, batch_norm=batch_norm)


def small_batchnorm(pad: str, in_channels: int, dropout: float) -> VGG:
    """``small`` with batch normalization: better on CamVid, worse on the demo's slices.

    Measured with an earlier, larger trunk (two convolutions in block 1): four epochs of FCN-8s on the demo's slices
    gave a validation mean IU of 0.68 with it and 0.82 without, five epochs on CamVid a test mean IU of 0.35 and 0.22.
    """
    return small(pad, in_channels, dropout, batch_norm=True)
