"""FCN-32s, FCN-16s and FCN-8s (CVPR 2015, section 4.2; TPAMI 2016, section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fcn_kernels import CoordMap, upsample_add
from fcn_kernels.grid import Border

from .backbones import BACKBONES, VGG
from .geometry import Layer, Upsampling, receptive_field
from .scores import Scores

UPSCORES: dict[int, tuple[str, ...]] = {
    32: ("upscore",),
    16: ("upscore2", "upscore16"),
    8: ("upscore2", "upscore_pool4", "upscore8"),
}
"""The published names of the upsampling layers by the stride of the finest map; all but the last end in a skip."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to rebuild a network: plain values only."""

    backbone: str = "vgg16"
    """Key of ``fcn.backbones.BACKBONES``."""
    stride: int = 8
    """32, 16 or 8: FCN-32s, FCN-16s, FCN-8s."""
    classes: int = 21
    pad: str = "same"
    """``"same"``, or ``"official"``: the published geometry, which pads images by 100."""
    in_channels: int = 3
    dropout: float = 0.5
    """Probability of dropping an element of fc6 and fc7."""


class FCN(nn.Module):
    """A trunk, one 1x1 scoring convolution per stream, and sums of upsampled scores.

    Scoring layers start at zero (the paper found no gain in random values), so a new skip does not change predictions.
    Bilinear filters are fixed: learning them makes no difference (the authors' FAQ). With ``pad="official"`` scores
    fade out at the borders of the maps as in the published transposed convolutions, exactly; with ``"same"`` not.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {tuple(BACKBONES)}, got {config.backbone!r}")
        if config.stride not in UPSCORES:
            raise ValueError(f"stride must be one of {tuple(UPSCORES)}, got {config.stride!r}")
        if config.classes < 2:
            raise ValueError(f"classes must be at least 2, got {config.classes}")
        self.config = config
        self.backbone: VGG = BACKBONES[config.backbone](config.pad, config.in_channels, config.dropout)

        deepest, *skips = self.backbone.taps
        *upscores, last = UPSCORES[config.stride]
        border: Border = "zeros" if config.pad == "official" else "clamp"
        self.skips = tuple(skips[: len(upscores)])
        self.score_fr = self._score(deepest)
        steps = []
        position = self.backbone.coord_map(deepest)
        for name, skip in zip(upscores, self.skips, strict=True):
            self.add_module(f"score_{skip}", self._score(skip))
            steps.append(Upsampling.onto(name, config.classes, position, self.backbone.coord_map(skip), border))
            position = steps[-1].coord_map
        self.fusions = tuple(steps)
        self.upscore = Upsampling.onto(last, config.classes, position, CoordMap(), border)

    def _score(self, tap: str) -> nn.Conv2d:
        conv = nn.Conv2d(self.backbone.channels(tap), self.config.classes, 1)
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        return conv

    def scores(self, images: Tensor) -> Scores:
        """Coarse scores of preprocessed images ``[N, in_channels, H, W]``, any H, W >= 1.

        Nothing of size classes x H x W is made. Raises ``ValueError`` or ``TypeError`` for images of another form.
        """
        if images.dim() != 4 or images.shape[1] != self.config.in_channels:
            wanted = f"[N, {self.config.in_channels}, H, W]"
            raise ValueError(f"FCN: images must be {wanted}, got shape {tuple(images.shape)}")
        if images.shape[2] < 1 or images.shape[3] < 1:
            raise ValueError(f"FCN: images must have at least one pixel, got shape {tuple(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"FCN: images must be floating point (see fcn.preprocessing), got {images.dtype}")
        features = self.backbone(images)
        coarse = self.score_fr(features[self.backbone.taps[0]])
        for fusion, skip in zip(self.fusions, self.skips, strict=True):
            feature = features[skip]
            height, width = (fusion.overlap(coarse.shape[axis], feature.shape[axis]) for axis in (2, 3))
            # Cropping before the 1x1 convolution gives what the published order gives, for less work.
            start = fusion.skip_crop
            feature = feature[:, :, start : start + height, start : start + width]
            coarse = upsample_add(coarse, getattr(self, f"score_{skip}")(feature), grid=fusion.grid((height, width)))
        return Scores(coarse, self.upscore.grid((images.shape[2], images.shape[3])))

    def forward(self, images: Tensor) -> Tensor:
        """Scores of every pixel ``[N, classes, H, W]``. Training and labeling need only ``scores``."""
        return self.scores(images).logits()

    @torch.no_grad()
    def init_from(self, other: FCN) -> list[str]:
        """Staged training: takes every parameter that ``other`` has too, and returns the names of those it lacks.

        Those keep their values: zero for the scores of a new skip. Raises ``ValueError`` where shapes differ.
        """
        mine, theirs = self.state_dict(), other.state_dict()
        wrong = [
            f"{name} is {tuple(tensor.shape)} here and {tuple(theirs[name].shape)} there"
            for name, tensor in mine.items()
            if name in theirs and theirs[name].shape != tensor.shape
        ]
        if wrong:
            raise ValueError("init_from: the networks differ: " + "; ".join(wrong))
        for name, tensor in mine.items():
            if name in theirs:
                tensor.copy_(theirs[name])
        return [name for name in mine if name not in theirs]


def build_model(config: ModelConfig) -> FCN:
    """A network with fresh parameters. Raises ``ValueError`` for a configuration that names nothing known."""
    return FCN(config)


def parameter_groups(model: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of the official solver: biases learn twice as fast, and only weights decay.

    Scales of normalization layers, which the published networks do not have, learn at ``lr`` without decay. Parameters
    that do not require gradients are left out.
    """
    groups: dict[str, dict[str, Any]] = {
        "weights": {"lr": lr, "weight_decay": weight_decay},
        "biases": {"lr": 2 * lr, "weight_decay": 0.0},
        "scales": {"lr": lr, "weight_decay": 0.0},
    }
    members: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = "biases" if name.endswith("bias") else "weights" if parameter.dim() > 1 else "scales"
            members[group].append(parameter)
    return [{"name": name, "params": members[name], **options} for name, options in groups.items() if members[name]]


@dataclass(frozen=True)
class LayerSummary:
    """A row of ``describe``; ``receptive_field`` and ``total_stride`` are in image pixels."""

    layer: str
    kind: str
    kernel_size: int
    stride: int
    channels: int
    parameters: int
    receptive_field: int
    total_stride: int


def describe(model: FCN) -> list[LayerSummary]:
    """One row per layer in the order of computation; the sum of ``parameters`` is that of the model.

    Upsampling layers (``kind="conv_transpose"``) have fixed filters, hence no parameters.
    """
    backbone, classes = model.backbone, model.config.classes

    def row(layer: Layer, path: tuple[Layer, ...]) -> LayerSummary:
        owner = backbone if layer in backbone.layers else model
        modules = [getattr(owner, name, None) for name in (layer.name, f"{layer.name}_norm")]
        count = sum(p.numel() for module in modules if isinstance(module, nn.Module) for p in module.parameters())
        stride = 1
        for step in path:
            stride = stride // step.stride if step.kind == "conv_transpose" else stride * step.stride
        size = (layer.kernel_size, layer.stride, layer.channels)
        return LayerSummary(layer.name, layer.kind, *size, count, receptive_field(path), stride)

    rows = [row(layer, backbone.path(layer.name)) for layer in backbone.layers]
    path = (*backbone.layers, Layer("score_fr", "conv", classes, 1))
    rows.append(row(path[-1], path))
    for fusion, skip in zip(model.fusions, model.skips, strict=True):
        path = (*path, fusion.layer)
        score = Layer(f"score_{skip}", "conv", classes, 1)
        rows += [row(fusion.layer, path), row(score, (*backbone.path(skip), score))]
    rows.append(row(model.upscore.layer, (*path, model.upscore.layer)))
    return rows
