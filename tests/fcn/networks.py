"""The published networks written with plain PyTorch layers, at the paddings and offsets of their prototxt files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fcn.networks.backbones import Architecture
from fcn.networks.models import FCN, ModelConfig, build_model

Parameters = Mapping[str, Tensor]
Maps = dict[str, Tensor]
State = dict[str, Tensor]
VGG_DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
SKIPS = {
    "vgg16": ("pool4", "pool3"),
    "vgg19": ("pool4", "pool3"),
    "alexnet": ("pool2", "pool1"),
    "googlenet": ("inception_4e", "inception_3b"),
}


def narrowed(architecture: Architecture, divisor: int) -> Architecture:
    """The same architecture with an even number of channels, about ``1 / divisor`` of what they were."""
    layers, channels = [], {"": 0}
    before = ""
    for layer in architecture.layers:
        if layer.kind in ("conv", "linear"):
            channels[layer.name] = 2 * math.ceil(layer.channels / divisor / 2)
        else:
            widths = [channels[name] for name in layer.inputs or (before,)]
            channels[layer.name] = widths[0] if layer.kind == "sum" else sum(widths)
        depthwise = layer.groups == layer.channels
        groups = channels[layer.name] if depthwise else layer.groups
        layers.append(replace(layer, channels=channels[layer.name], groups=groups))
        before = layer.name
    return replace(architecture, layers=tuple(layers))


def random_model(backbone: str, seed: int = 0, **options: Any) -> FCN:
    """Every parameter random, those that start at zero included; learned upsamplings near bilinear."""
    torch.manual_seed(seed)
    model = build_model(ModelConfig(backbone, **{"classes": 3, "dropout": 0.0, **options}))
    for name, parameter in model.named_parameters():
        if "upscore" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
        elif "score" in name:
            torch.nn.init.normal_(parameter, std=0.3)
        elif name.endswith("bias"):
            torch.nn.init.uniform_(parameter, 0.0, 0.5)  # So few channels would often all be negative.
    return model


def published_parameters(model: FCN) -> dict[str, Tensor]:
    """Its parameters by the names of the published files, which know no trunk and head."""
    return {name.split(".", 1)[1]: parameter for name, parameter in model.named_parameters()}


def _conv(p: Parameters, name: str, x: Tensor, **options: Any) -> Tensor:
    return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], **options)


def _pool(x: Tensor, kernel_size: int, stride: int, padding: int = 0) -> Tensor:
    return F.max_pool2d(x, kernel_size, stride, padding, ceil_mode=True)


def _norm(x: Tensor) -> Tensor:
    """Caffe's LRN across channels: x / (1 + alpha / 5 * sum of squares of five channels) ** beta."""
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    sums = sum(squares[:, shift : shift + x.shape[1]] for shift in range(5))
    return x / (1 + 1e-4 / 5 * sums) ** 0.75


def vgg(p: Parameters, x: Tensor, depths: tuple[int, ...], first_padding: int, fc6_padding: int = 0) -> Maps:
    maps = {}
    for block, depth in enumerate(depths, start=1):
        for index in range(1, depth + 1):
            padding = first_padding if (block, index) == (1, 1) else 1
            x = F.relu(_conv(p, f"conv{block}_{index}", x, padding=padding))
        maps[f"pool{block}"] = x = _pool(x, 2, 2)
    x = F.relu(_conv(p, "fc6", x, padding=fc6_padding))
    maps["fc7"] = F.relu(_conv(p, "fc7", x))
    return maps


def alexnet(p: Parameters, x: Tensor, first_padding: int) -> Maps:
    maps = {}
    x = F.relu(_conv(p, "conv1", x, stride=4, padding=first_padding))
    maps["pool1"] = x = _pool(x, 3, 2)
    x = F.relu(_conv(p, "conv2", _norm(x), padding=2, groups=2))
    maps["pool2"] = x = _pool(x, 3, 2)
    x = F.relu(_conv(p, "conv3", _norm(x), padding=1))
    x = F.relu(_conv(p, "conv4", x, padding=1, groups=2))
    x = F.relu(_conv(p, "conv5", x, padding=1, groups=2))
    maps["pool5"] = x = _pool(x, 3, 2)
    x = F.relu(_conv(p, "fc6", x))
    maps["fc7"] = F.relu(_conv(p, "fc7", x))
    return maps


def googlenet(p: Parameters, x: Tensor) -> Maps:
    maps = {}
    x = _norm(_pool(F.relu(_conv(p, "conv1/7x7_s2", x, stride=2, padding=3)), 3, 2))
    x = F.relu(_conv(p, "conv2/3x3_reduce", x))
    x = _pool(_norm(F.relu(_conv(p, "conv2/3x3", x, padding=1))), 3, 2)
    for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        name = f"inception_{module}"
        threes = F.relu(_conv(p, f"{name}/3x3_reduce", x))
        fives = F.relu(_conv(p, f"{name}/5x5_reduce", x))
        x = torch.cat(
            [
                F.relu(_conv(p, f"{name}/1x1", x)),
                F.relu(_conv(p, f"{name}/3x3", threes, padding=1)),
                F.relu(_conv(p, f"{name}/5x5", fives, padding=2)),
                F.relu(_conv(p, f"{name}/pool_proj", _pool(x, 3, 1, 1))),
            ],
            1,
        )
        maps[name] = x
        if module in ("3b", "4e"):
            x = _pool(x, 3, 2)
    return maps


def trunk(backbone: str, p: Parameters, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The maps that the official networks score, coarsest first."""
    if backbone == "googlenet":
        maps, last = googlenet(p, images), "inception_5b"
    else:
        maps = alexnet(p, images, 100) if backbone == "alexnet" else vgg(p, images, VGG_DEPTHS[backbone], 100)
        last = "fc7"
    return maps[last], *(maps[skip] for skip in SKIPS[backbone])


def bilinear(kernel_size: int, classes: int, dtype: torch.dtype) -> Tensor:
    """Caffe's Deconvolution: a dense classes x classes kernel, bilinear on its diagonal."""
    factor = (kernel_size + 1) // 2
    profile = 1 - (torch.arange(kernel_size, dtype=dtype) - (kernel_size - 1) / 2).abs() / factor
    return torch.einsum("ij,a,b->ijab", torch.eye(classes, dtype=dtype), profile, profile)


def crop(x: Tensor, offset: int, height: int, width: int) -> Tensor:
    part = x[:, :, offset : offset + height, offset : offset + width]
    assert part.shape[2:] == (height, width)  # A slice past the end would be shorter, in silence.
    return part


# Kernels of the upsamplings, crops of the skips, crop onto the image.
HEADS = {
    "vgg": {32: ([64], [], 19), 16: ([4, 32], [5], 27), 8: ([4, 4, 16], [5, 9], 31)},
    "alexnet": {32: ([63], [], 18), 16: ([3, 31], [5], 18), 8: ([3, 3, 15], [5, 10], 18)},
    "googlenet": {32: ([63], [], 1), 16: ([3, 31], [0], 1), 8: ([3, 3, 15], [0, 0], 1)},
}


def official(
    backbone: str, p: Parameters, images: Tensor, stride: int, scales: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Scores of every pixel: conv, ceil pooling, dense ``conv_transpose2d``, slices at the published offsets.

    ``p`` by published names; upsampling weights, diagonal or dense, are taken from it where they are.
    """
    deepest, *skips = trunk(backbone, p, images)
    kernels, offsets, last_offset = HEADS["vgg" if backbone.startswith("vgg") else backbone][stride]
    names = {
        32: ["upscore"],
        16: ["upscore2", "upscore16"],
        8: ["upscore2", f"upscore_{SKIPS[backbone][0]}", "upscore8"],
    }[stride]
    x = _conv(p, "score_fr", deepest)
    classes = x.shape[1]

    def upsampled(x: Tensor, name: str, kernel_size: int, factor: int) -> Tensor:
        weight = p.get(f"{name}.weight", bilinear(kernel_size, classes, x.dtype))
        return F.conv_transpose2d(x, weight, stride=factor, groups=classes // weight.shape[1])

    for index, offset in enumerate(offsets):
        up = upsampled(x, names[index], kernels[index], 2)
        score = _conv(p, f"score_{SKIPS[backbone][index]}", skips[index] * scales[index])
        # Of GoogLeNet the upsampled map is the larger one.
        size = [min(up.shape[axis], score.shape[axis] - offset) for axis in (2, 3)]
        x = crop(up, 0, *size) + crop(score, offset, *size)
    x = upsampled(x, names[-1], kernels[-1], stride)
    return crop(x, last_offset, images.shape[2], images.shape[3])


def published_state(backbone: str, stride: int, classes: int = 3, seed: int = 0) -> State:
    """The tensors of a published network, with its transposed convolutions from every class to every class."""
    model = random_model(backbone, seed, stride=stride, classes=classes, pad="official")
    state = {name: tensor.detach().clone() for name, tensor in published_parameters(model).items()}
    kernels = HEADS["vgg" if backbone.startswith("vgg") else backbone][stride][0]
    for name, kernel_size in zip((*model.head.fusions, model.head.last), kernels, strict=True):
        state[f"{name}.weight"] = bilinear(kernel_size, classes, torch.float32)
    return state
