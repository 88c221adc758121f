"""Fully convolutional networks: a trunk made from a classifier, and a head on it (CVPR 2015; TPAMI 2016)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from fcn_kernels.grid import Border

from .backbones import BACKBONES, Architecture, Modalities, Net, Traced, convolutionalize, is_traced
from .backbones.traced import network_named
from .geometry import output_size, paths, total_stride
from .heads import Filter, Head, Stream
from .scores import Scores

Trunk = Callable[[Tensor], Mapping[str, Tensor]]
Biases = Literal["doubled", "plain"]

STRIDES = (32, 16, 8, 4)
PADS = ("same", "official")
FUSIONS = ("sum", "mean")
LARGEST_FIELD = 4096
"""Image sizes up to here are tried in the search of the smallest."""
AT_ONCE_SCALES = {16: 0.01, 8: 0.0001}
"""What FCN-8s trained at once multiplies the maps of its skips by (TPAMI 2016, section 4.3)."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to rebuild a network: plain values only. ``ValueError`` for what makes no network."""

    backbone: str = "vgg16"
    """Key of ``networks.backbones.BACKBONES``; or any other network, traced: ``torchvision:NAME``, ``timm:NAME``, or a
    name given to ``register_trunk``."""
    stride: int = 8
    """32, 16 or 8: FCN-32s, FCN-16s, FCN-8s; 4 has a skip more (pool2), for thin structures: not in the paper."""
    classes: int = 21
    pad: str = "same"
    """``"same"``, or ``"official"``: the published geometry, which pads images by 100 (GoogLeNet: not at all)."""
    in_channels: int = 3
    """Of an image; 4 for color and depth in one trunk (early fusion). Of each modality where there are several."""
    dropout: float = 0.5
    """Probability of dropping an element of fc6 and fc7 (GoogLeNet: of the last maps)."""
    at_once: bool = False
    """Scale the maps of the skips as FCN-8s trained at once, not in stages, does."""
    upsampling: Filter = "fixed"
    """Filters between streams: ``"fixed"`` bilinear, learned for each class (``"diagonal"``), or ``"dense"``: learned
    from every class to every class."""
    last_upsampling: Filter = "fixed"
    """The filter onto the image. Unless it is fixed, scores of full resolution are made."""
    truncate: str = ""
    """Layer that is scored in place of the last one: pool5, pool4 and pool3 of TPAMI 2016, table 3."""
    modalities: tuple[str, ...] = ()
    """Names of trunks that each see ``in_channels`` of the input and whose scores are fused (late fusion)."""
    fusion: str = "sum"
    """Of the scores of several modalities: ``"sum"``, or ``"mean"`` as in the published network. What a step of a given
    rate does depends on it, so a mean is not written as a sum with smaller weights."""
    tasks: tuple[tuple[str, int], ...] = ()
    """Names and numbers of classes of several tasks that share the network; ``classes`` is their sum."""

    @property
    def name(self) -> str:
        """For people: ``FCN-8s, vgg16, 21 classes``."""
        return f"FCN-{self.stride}s, {self.backbone}, {self.classes} classes"

    def __post_init__(self) -> None:
        object.__setattr__(self, "modalities", tuple(self.modalities))
        object.__setattr__(self, "tasks", tuple((str(name), int(classes)) for name, classes in self.tasks))
        if is_traced(self.backbone):
            for name, value in (("pad", "same"), ("truncate", ""), ("in_channels", 3)):
                if getattr(self, name) != value:
                    raise ValueError(
                        f"{name} must be {value!r} for {self.backbone}, a network traced as it is, "
                        f"got {getattr(self, name)!r}"
                    )
        elif self.backbone not in BACKBONES:
            raise ValueError(
                f"backbone must be one of {tuple(BACKBONES)}, torchvision:NAME, timm:NAME or a registered name, "
                f"got {self.backbone!r}"
            )
        for name, known in (
            ("stride", STRIDES),
            ("pad", PADS),
            ("fusion", FUSIONS),
            ("upsampling", get_args(Filter)),
            ("last_upsampling", get_args(Filter)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, got {self.classes}")
        if self.at_once and self.stride not in AT_ONCE_SCALES:
            raise ValueError(
                f"at_once scales the skips of FCN-16s and FCN-8s: stride must be 16 or 8, got {self.stride}"
            )
        if len(set(self.modalities)) != len(self.modalities) or not all(map(str.isidentifier, self.modalities)):
            raise ValueError(f"modalities must be different names, got {self.modalities}")
        if self.tasks:
            sizes = [classes for _, classes in self.tasks]
            names = [name for name, _ in self.tasks]
            if min(sizes) < 2 or sum(sizes) != self.classes or len(set(names)) != len(names):
                raise ValueError(f"tasks must have different names and sum to {self.classes} classes, got {self.tasks}")
            if not all(map(str.isidentifier, names)):  # they become names of files
                raise ValueError(f"names of tasks must be identifiers, such as semantic, got {names}")
            if "dense" in (self.upsampling, self.last_upsampling):
                raise ValueError("dense upsampling would mix the tasks: use fixed or diagonal")

    @property
    def architecture(self) -> Architecture:
        """``KeyError`` for a traced network."""
        return BACKBONES[self.backbone]

    @property
    def share(self) -> float:
        """By which each modality's scores count."""
        return 1 / len(self.modalities) if self.modalities and self.fusion == "mean" else 1.0

    @property
    def task_classes(self) -> dict[str, int]:
        """Number of classes of each task; the name of a single one is empty."""
        return dict(self.tasks) or {"": self.classes}


class FCN(nn.Module):
    """A trunk and a head. ``pad="official"`` gives what the published networks give, exactly."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        trunks: dict[str, Net | Traced]
        names = config.modalities or ("",)
        if is_traced(config.backbone):
            trunks = {name: _traced(config) for name in names}
            taps = _traced_taps(config, trunks[names[0]].taps)
        else:
            taps = _taps(config)
            trunks = {name: _trunk(config, taps) for name in names}
        trunk: Net | Traced | Modalities = Modalities(trunks) if config.modalities else trunks[""]
        self.backbone, share = trunk, config.share
        streams = [
            Stream(tap.layer, tap.score, trunk.channels(tap.layer), trunk.coord_map(tap.layer), tap.scale * share)
            for tap in taps
        ]
        border: Border = "zeros" if config.pad == "official" else "clamp"
        self.head = Head(streams, config.stride, config.classes, border, config.upsampling, config.last_upsampling)
        self.smallest_image = _smallest_image(self)

    @property
    def trunks(self) -> dict[str, Net | Traced]:
        """By name of its modality; the name of a single one is empty."""
        if isinstance(self.backbone, Modalities):
            return dict(zip(self.config.modalities, self.backbone.trunks(), strict=True))
        return {"": self.backbone}

    def scores(self, images: Tensor, trunk: Trunk | None = None) -> Scores:
        """Coarse scores of preprocessed images ``[N, in_channels, H, W]``, any H, W >= ``smallest_image``: 1, but for
        FCN-GoogLeNet with the classifier's padding.

        Nothing of size classes x H x W is made unless the last upsampling is learned. ``trunk`` computes the maps of
        ``backbone`` in another way. Raises ``ValueError`` or ``TypeError`` for images of another form, and
        ``ValueError`` for a network of several tasks.
        """
        if self.config.tasks:
            names = ", ".join(self.config.task_classes)
            raise ValueError(f"FCN: this network has scores for each of the tasks {names}: see task_scores")
        return self._scores(images, trunk)

    def task_scores(self, images: Tensor, trunk: Trunk | None = None) -> dict[str, Scores]:
        """``scores`` of each of ``config.tasks``; the name of a single one is empty."""
        return self.by_task(self._scores(images, trunk))

    def by_task(self, scores: Scores) -> dict[str, Scores]:
        """The scores of each task, from those of all classes."""
        sizes = self.config.task_classes
        parts = scores.coarse.split(list(sizes.values()), dim=1)
        return {name: Scores(part, scores.grid) for name, part in zip(sizes, parts, strict=True)}

    def _scores(self, images: Tensor, trunk: Trunk | None) -> Scores:
        if images.dim() != 4 or images.shape[1] != self.backbone.in_channels:
            wanted = f"[N, {self.backbone.in_channels}, H, W]"
            raise ValueError(f"FCN: images must be {wanted}, got shape {tuple(images.shape)}")
        smallest = self.smallest_image
        if images.shape[2] < smallest or images.shape[3] < smallest:
            least = "one pixel" if smallest == 1 else f"{smallest} x {smallest} pixels"
            raise ValueError(f"FCN: images must have at least {least}, got shape {tuple(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"FCN: images must be floating point (see fcn.preprocessing), got {images.dtype}")
        maps = (trunk or self.backbone)(images)
        scores: Scores = self.head(maps, (images.shape[2], images.shape[3]))
        return scores

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


@torch.no_grad()
def late_fusion(networks: Mapping[str, FCN]) -> FCN:
    """A network on the joined inputs of ``networks``, by name of their modality, that gives the mean of their scores.

    CVPR 2015, section 5 (NYUDv2: color and depth, each trained alone first). Raises ``ValueError`` for networks that
    differ in more than their weights and dropout, or whose upsampling is learned.
    """
    if any(network.config.modalities for network in networks.values()):
        raise ValueError("late_fusion: networks must be of one modality each")
    for name in (field.name for field in fields(ModelConfig)):
        values = {modality: getattr(network.config, name) for modality, network in networks.items()}
        if name != "dropout" and len(set(values.values())) > 1:
            raise ValueError(f"late_fusion: networks must have the same configuration, but {name} is {values}")
    first = next(iter(networks.values()))
    config = replace(first.config, modalities=tuple(networks), fusion="mean")
    if config.upsampling != "fixed" or config.last_upsampling != "fixed":
        raise ValueError("late_fusion: the mean of learned upsamplings is no upsampling; they must be fixed")
    fused = FCN(config).to(next(first.parameters())).train(first.training)
    for name, network in networks.items():
        fused.trunks[name].load_state_dict(network.backbone.state_dict())
    for stream in first.head.streams:
        scores = [network.head.score(stream) for network in networks.values()]
        fused.head.score(stream).load_state_dict(
            {
                "weight": torch.cat([score.weight for score in scores], 1),
                "bias": torch.stack([cast(Tensor, score.bias) for score in scores]).mean(0),
            }
        )
    return fused


@dataclass(frozen=True)
class _Tap:
    layer: str
    score: str
    scale: float


def _traced(config: ModelConfig) -> Traced:
    strides = [stride for stride in STRIDES if stride >= config.stride]
    with torch.device("cpu"):  # others' constructors may read what they made, and on "meta" there is nothing to read
        return Traced(config.backbone, network_named(config.backbone), strides)


def _traced_taps(config: ModelConfig, layers: tuple[str, ...]) -> list[_Tap]:
    """The last layer of each stride, coarsest first."""
    scale = AT_ONCE_SCALES if config.at_once else {}
    deepest, *skips = layers
    further = zip(skips, STRIDES[1:], strict=False)
    return [_Tap(deepest, "score_fr", 1.0), *(_Tap(tap, f"score_{s}", scale.get(s, 1.0)) for tap, s in further)]


def _taps(config: ModelConfig) -> list[_Tap]:
    """The layers that are scored, coarsest first."""
    architecture = config.architecture
    chains = paths(architecture.layers)
    deepest, *skips = architecture.taps
    taps = [_Tap(deepest, "score_fr", 1.0)]
    if config.truncate:
        if config.truncate not in chains:
            raise ValueError(
                f"truncate: {config.backbone} has no layer {config.truncate!r}; it has {', '.join(chains)}"
            )
        taps = [_Tap(config.truncate, _score_name(config.truncate), 1.0)]
    deepest_stride = total_stride(chains[taps[0].layer])
    if deepest_stride not in STRIDES or deepest_stride < config.stride:
        raise ValueError(
            f"truncate: {config.truncate} has stride {deepest_stride}; with stride {config.stride} it must be one of "
            f"{tuple(stride for stride in STRIDES if stride >= config.stride)}"
        )
    for skip in skips:
        stride = total_stride(chains[skip])
        if config.stride <= stride < deepest_stride:
            taps.append(_Tap(skip, _score_name(skip), AT_ONCE_SCALES[stride] if config.at_once else 1.0))
    return taps


def _score_name(layer: str) -> str:
    return f"score_{layer.removesuffix('/output').replace('/', '_')}"


def _trunk(config: ModelConfig, taps: list[_Tap]) -> Net:
    architecture = config.architecture
    names = [tap.layer for tap in taps]
    classifier = Net(architecture.layers, names, config.in_channels, config.dropout)
    padding: int | Literal["same"] | None = architecture.official_padding if config.pad == "official" else "same"
    return convolutionalize(classifier, padding=padding, discard_average=True)


def _smallest_image(model: FCN) -> int:
    """The size from which on every image is covered with scores; what a stride of 32 sizes does repeats."""
    chains = [model.backbone.path(stream.tap) for stream in model.head.streams]

    def works(size: int) -> bool:
        try:
            return model.head.covers([output_size(chain, size) for chain in chains], size)
        except ValueError:
            return False

    for first in range(1, LARGEST_FIELD):
        if all(works(size) for size in range(first, first + 32)):
            return first
    raise ValueError(
        f"{model.config.backbone}: its maps leave pixels at the end of images of some sizes without scores; "
        "last_upsampling must be fixed"
    )


def build_model(config: ModelConfig | str, **options: Any) -> FCN:
    """A network with fresh parameters: of a configuration, or of a backbone's name with ``options`` of ``ModelConfig``.

    ``build_model("vgg16", classes=11)``. Raises ``ValueError`` for what names nothing known."""
    if isinstance(config, str):
        config = ModelConfig(config, **options)
    elif options:
        raise TypeError(f"build_model: {min(options)} belongs into the ModelConfig that is given")
    return FCN(config)


def parameter_groups(
    model: FCN, lr: float, weight_decay: float, head_rate: float = 1.0, biases: Biases = "doubled"
) -> list[dict[str, Any]]:
    """Optimizer groups of the official solvers: biases learn twice as fast, and only weights decay.

    Scales of normalization layers, which the published networks do not have, learn at ``lr`` without decay. Parameters
    that do not require gradients are left out. ``head_rate``: rates of the head are multiplied by it, in groups of its
    own. ``biases="plain"``: those of the trunk learn and decay as weights do. Where scores of M modalities are
    averaged, one bias stands for the mean of M, which learns at 1 / M of their rate.
    """
    kinds = {"weights": (lr, weight_decay), "biases": (2 * lr, 0.0), "scales": (lr, 0.0)}
    kinds["fused biases"] = (2 * lr * model.config.share, 0.0)
    groups: dict[str, dict[str, Any]] = {}
    for part, factor in {"": 1.0, "head ": head_rate}.items():
        for kind, (rate, decay) in kinds.items():
            groups[part + kind] = {"name": part + kind, "params": [], "lr": factor * rate, "weight_decay": decay}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            head = name.startswith("head.")
            kind = "biases" if name.endswith("bias") else "weights" if parameter.dim() > 1 else "scales"
            if kind == "biases" and head and model.config.share != 1:
                kind = "fused biases"
            elif kind == "biases" and not head and biases == "plain":
                kind = "weights"
            part = "head " if head_rate != 1 and head else ""
            groups[part + kind]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]
