"""Recipes: everything that decides a training run, in a YAML file; every key can be overridden on the command line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser

from ..data import KINDS, Augmentation, SegmentationDataset, folder, mri
from ..data.folders import RATIO
from ..errors import ConfigError
from ..files import write_text
from ..networks.heads import Filter
from ..networks.models import Biases
from .expansion import check_expansion
from .presets import preset_options

RECIPE_FILE = "recipe.yaml"
"""What a run was trained by, in its folder."""
LIBRARY = Path(__file__).with_name("library")
"""Recipes that come along: ``NAME.yaml``."""


@dataclass
class DataConfig:
    """Which images. ``mri`` (in the nilearn package) needs no root; ``folder`` is any folder of images and masks.

    kind: ``mri``, or a name of ``fcn.data.KINDS`` (``fcn data kinds`` lists them).
    root: the folder of the data.
    train_split, val_split, test_split: where splits are lists, they join and subtract: train+val-seg11valid.
    images, masks: names of the two folders, or patterns of paths, photos/*.jpg and photos/*_L.png, whose * stand for
        the same (``folder`` only, as the next three).
    classes: values or colors in the masks by the name of their class, {road: [128, 64, 128], void: 7}.
    ratio, split_seed: of images without splits, the parts of training, validation and test; by name, or by chance.
    preprocessing: ``fit`` (mean and deviation of the training images); ``weights``: that of the weights to start from
        (``model.pretrained`` or ``model.init_from``), or one by its name, ``caffe_vgg``, ``imagenet`` (torchvision) or
        ``efficientnet_lite``; or ``published``: what the authors' networks for these data were given.
    longest_side: images with a longer side are reduced to this many pixels, in training and, since it is kept with the
        weights, in prediction; labels keep the size of the original. null: never.
    batch_size: images of a batch.
    workers: processes that read images; 0 reads in the training process.
    """

    kind: str
    root: str | None = None
    images: str = "images"
    masks: str = "masks"
    classes: dict[str, int | list[int]] = field(default_factory=dict)
    ratio: list[float] = field(default_factory=lambda: list(RATIO))
    split_seed: int | None = None
    train_split: str = "train"
    val_split: str = "val"
    test_split: str = "test"
    preprocessing: Literal["fit", "weights", "caffe_vgg", "imagenet", "efficientnet_lite", "published"] = "fit"
    longest_side: int | None = None
    augment: Augmentation = field(default_factory=Augmentation)
    batch_size: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, "mri"):
            raise ValueError(f"data.kind must be one of {', '.join((*KINDS, 'mri'))}, got {self.kind!r}")
        _positive("data.batch_size", self.batch_size)
        if self.longest_side is not None:
            _positive("data.longest_side", self.longest_side)
        if not 0 <= self.workers <= 256:
            raise ValueError(f"data.workers must be 0 to 256 processes, got {self.workers}")

    def dataset(self, split: str) -> SegmentationDataset:
        """Raises ``ConfigError`` for a missing root, ``DataError`` for files that cannot be used."""
        if self.kind == "mri":
            return mri(split)
        if self.root is None:
            raise ConfigError(f"data.root is missing: the folder of the {self.kind} data (--data.root FOLDER)")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise ConfigError(f"data.root: {root} is not a folder")
        if self.kind == "folder":
            options: dict[str, Any] = {"classes": self.classes, "ratio": self.ratio, "seed": self.split_seed}
            return folder(root, split, self.images, self.masks, **options)
        return KINDS[self.kind].load(root, split)


@dataclass
class NetworkConfig:
    """See ``fcn.ModelConfig``; the stride comes from the stages, the number of classes from the data.

    backbone: the trunk, a name of ``fcn info``, ``torchvision:NAME`` or ``timm:NAME``.
    pad: ``same``, or ``official``: 100 pixels at the first layer, as published.
    dropout: probability, in fully connected layers or before the scores.
    at_once: skips scaled to be trained with the rest from the start (TPAMI 2016), rather than added stage by stage.
    upsampling: filters between streams: bilinear for good (``fixed``), or learned, one a class (``diagonal``) or from
        every class to every class (``dense``).
    last_upsampling: the same of the filter that leads to the image.
    modalities: names of trunks that see three channels of an image each and whose scores are summed (late fusion),
        such as ``[color, hha]``.
    truncate: layer that is scored in place of the last one, such as pool5: what lies behind it is left out.
    pretrained: weights of each trunk: a classifier or FCN of Caffe, torchvision, pytorch-fcn or this program; or the
        name of a backbone whose weights come in a package, efficientnet_lite0, 1 or 2 (the extra ``pretrained``), or
        from a library, torchvision:NAME or timm:NAME.
    init_from: a network trained by this program to start from, scores included; or one for each of ``modalities``,
        ``{color: FILE, hha: FILE}``, whose scores are averaged.
    tune: the weights of ``all`` layers, or only of the ``head``: CVPR 2015's FCN-32s-fixed.
    """

    backbone: str = "vgg16"
    pad: Literal["same", "official"] = "same"
    dropout: float = 0.5
    at_once: bool = False
    upsampling: Filter = "fixed"
    last_upsampling: Filter = "fixed"
    truncate: str = ""
    modalities: list[str] = field(default_factory=list)
    pretrained: str | None = None
    init_from: str | dict[str, str] | None = None
    tune: Literal["all", "head"] = "all"

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout must be a probability below 1, got {self.dropout}")
        if self.pretrained is not None and self.init_from is not None:
            raise ValueError("model.pretrained is a trunk, model.init_from whole networks: one of them must be null")


@dataclass
class LossConfig:
    """Per-pixel cross-entropy, void left out.

    normalize: True divides the sum over the batch by its labeled pixels; False by its images, as the authors' "heavy"
        recipe does (its learning rates are about 1e-10 for that reason). Both are summed in float32.
    class_weights: ``median_frequency`` weighs each class by median frequency / frequency (see ``training/losses``), and
        ``root_median_frequency`` by the root of that, which lifts rare classes without flooding images with them.
    task_weights: of several tasks, whose losses are added: what that of each is multiplied by. 1 unless given.
    sampling: in training, the loss of each cell of the network's scores counts with this probability, times its inverse
        (CVPR 2015, section 4.4: there the batch grows by that inverse).
    kind: ``fused`` never makes full-resolution scores; ``unfused`` makes them, for comparison only.
    """

    normalize: bool = True
    class_weights: Literal["none", "median_frequency", "root_median_frequency"] = "none"
    task_weights: dict[str, float] = field(default_factory=dict)
    sampling: float = 1.0
    kind: Literal["fused", "unfused"] = "fused"

    def __post_init__(self) -> None:
        if not 0 < self.sampling <= 1:
            raise ValueError(f"loss.sampling must be a probability above 0, got {self.sampling}")
        if not all(0 < weight < inf for weight in self.task_weights.values()):
            raise ValueError(f"loss.task_weights must be above 0 and finite, got {self.task_weights}")


@dataclass
class OptimizerConfig:
    """Biases learn at twice the rate and do not decay, as in the authors' solvers.

    name: ``sgd`` with momentum, or ``adamw``.
    momentum: of SGD.
    weight_decay: of the weights, for each step.
    schedule: over each stage, ``constant``; ``poly``: rate x (1 - step / steps) ** 0.9; or ``step``: a tenth of the
        rate after each of ``milestones``.
    milestones: parts of the stage.
    warmup: steps at the start of each stage over which rates grow, evenly, to those of the schedule.
    head_rate: rates of the head, the scores of the trunk's maps, are those of the trunk times this.
    biases: those of the trunk learn at twice the rate and do not decay (``doubled``), or as weights do (``plain``): the
        authors' solver for AlexNet.
    rates_for: the loss that rates and decay are meant for: ``loss``, the one there is, or the pixels' ``mean`` or
        ``sum``. Where that is the other one, rates are multiplied or divided by the labeled pixels of an image, and
        decay the other way round, so that SGD's steps are the same. (Of several tasks: by the mean of theirs, so that
        steps are the same where each task has as many.)
    """

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["constant", "poly", "step"] = "constant"
    milestones: list[float] = field(default_factory=lambda: [0.6, 0.85])
    warmup: int = 0
    head_rate: float = 1.0
    biases: Biases = "doubled"
    rates_for: Literal["loss", "mean", "sum"] = "loss"

    def __post_init__(self) -> None:
        if not all(0 < milestone < 1 for milestone in self.milestones):
            raise ValueError(f"optimizer.milestones must lie between 0 and 1, got {self.milestones}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optimizer.momentum must be at least 0 and below 1, got {self.momentum}")
        if not 0 <= self.weight_decay < inf:
            raise ValueError(f"optimizer.weight_decay must be at least 0 and finite, got {self.weight_decay}")
        if self.warmup < 0:
            raise ValueError(f"optimizer.warmup must be 0 or more steps, got {self.warmup}")
        if not 0 < self.head_rate < inf:
            raise ValueError(f"optimizer.head_rate must be above 0 and finite, got {self.head_rate}")


@dataclass
class StagesConfig:
    """Networks trained one after the other, each initialized by the best weights of the one before.

    stride: 32, 16 or 8 for FCN-32s, -16s, -8s; 4 has a skip more, which the paper has not.
    epochs, lr: one number for each stage.
    """

    stride: list[int] = field(default_factory=lambda: [32, 16, 8])
    epochs: list[int] = field(default_factory=lambda: [10, 10, 10])
    lr: list[float] = field(default_factory=lambda: [1e-3, 1e-5, 1e-7])

    def __post_init__(self) -> None:
        if not len(self.stride) == len(self.epochs) == len(self.lr) > 0:
            raise ValueError(
                "stages.stride, stages.epochs and stages.lr must have one number for each stage, "
                f"got {self.stride}, {self.epochs} and {self.lr}"
            )
        if not set(self.stride) <= {32, 16, 8, 4} or len(set(self.stride)) < len(self.stride):
            raise ValueError(f"stages.stride must hold 32, 16, 8 or 4, each at most once, got {self.stride}")
        for epochs in self.epochs:
            _positive("stages.epochs", epochs)
        if not all(0 < rate < inf for rate in self.lr):
            raise ValueError(f"stages.lr must be above 0 and finite, got {self.lr}")


@dataclass
class TrainerConfig:
    """How to run.

    run_dir: where everything is written.
    seed: of first weights, order, views and dropout: the same seed gives the same run.
    validate_every: epochs between validations (and checkpoints).
    patience: a stage ends after this many validations without a higher mean IU (of several tasks: the first's). null:
        never early.
    accumulate: batches whose gradients are averaged for a step.
    average: validate and keep an exponential moving average of the weights with this decay, such as 0.999. 0: off.
    accelerator: ``auto`` is the GPU where there is one.
    devices, nodes: processes on each machine, and machines. ``data.batch_size`` images are shared by all.
    deterministic: fail where PyTorch has no deterministic algorithm, rather than warn.
    precision: ``bf16-mixed`` computes convolutions in bfloat16.
    log_every: steps between points of the training loss in TensorBoard's events.
    """

    run_dir: str
    seed: int = 0
    validate_every: int = 1
    log_every: int = 10
    patience: int | None = None
    accumulate: int = 1
    average: float = 0.0
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    nodes: int = 1
    deterministic: bool = False
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    def __post_init__(self) -> None:
        for key in ("validate_every", "log_every", "accumulate", "devices", "nodes"):
            _positive(f"trainer.{key}", getattr(self, key))
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"trainer.seed must be a number from 0 to 2**63 - 1, got {self.seed}")
        if self.patience is not None:
            _positive("trainer.patience", self.patience)
        if not 0 <= self.average < 1:
            raise ValueError(f"trainer.average must be at least 0 and below 1, got {self.average}")


@dataclass
class Recipe:
    """A training run."""

    data: DataConfig
    trainer: TrainerConfig
    model: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    stages: StagesConfig = field(default_factory=StagesConfig)


def load_recipe(path: str | Path, overrides: Sequence[str] = (), preset: str | None = None) -> Recipe:
    """The recipe of a file or a name (``recipe_file``), with a solver of ``recipes/presets`` and then ``--key.sub
    value`` pairs on top.

    Raises ``ConfigError`` for a file that cannot be read, unknown keys, and values of a wrong type.
    """
    path = recipe_file(path)
    check_expansion(path)

    def parsed(options: Sequence[str]) -> Recipe:
        return Recipe(**_parse(_recipe_parser(), [f"--config={path}", *options], f"{path}: "))

    recipe = parsed(overrides)
    if preset is None:
        return recipe
    several = recipe.data.kind.endswith("_tasks")
    return parsed([*preset_options(preset, recipe.model.backbone, len(recipe.stages.lr), several), *overrides])


def recipe_file(recipe: str | Path) -> Path:
    """A recipe's file; ``recipe`` may be the name of one of ``LIBRARY``. Raises ``ConfigError``."""
    if Path(recipe).is_file():
        return Path(recipe)
    library = {path.stem: path for path in sorted(LIBRARY.glob("*.yaml"))}
    if str(recipe) not in library:
        raise ConfigError(
            f"{recipe}: recipe not found, nor a folder of data; these recipes come along: {', '.join(library)}"
        )
    return library[str(recipe)]


def recipe_of(weights: Path) -> Path | None:
    """The recipe of the run that wrote ``weights``, at its end or in a stage; None where there is none."""
    folder = weights.absolute().parent
    folders = [folder, folder.parent] if re.fullmatch(r"fcn\d+s", folder.name) else [folder]
    return next((each / RECIPE_FILE for each in folders if (each / RECIPE_FILE).is_file()), None)


def load_data_config(overrides: Sequence[str], recipe: Path | None = None) -> DataConfig:
    """Data options from ``--data.key value`` pairs, on top of those of ``recipe`` unless another kind is asked for.

    Raises ``ConfigError`` as ``load_recipe`` does."""
    if recipe is not None and "data.kind" not in overridden(overrides):
        return load_recipe(recipe, overrides).data
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DataConfig, "data")
    config: DataConfig = _parse(parser, list(overrides), "")["data"]
    return config


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write the resolved recipe as YAML, whole."""
    write_text(path, yaml.safe_dump(_plain(asdict(recipe)), sort_keys=False))


def rooted(recipe: Recipe) -> Recipe:
    """The same with full paths: it means the same from any folder."""
    data, model = recipe.data, recipe.model
    if data.root is not None:
        data = replace(data, root=_rooted(data.root))
    if model.pretrained is not None and Path(model.pretrained).expanduser().exists():  # else the name of a package's
        model = replace(model, pretrained=_rooted(model.pretrained))
    if isinstance(model.init_from, str):
        model = replace(model, init_from=_rooted(model.init_from))
    elif model.init_from is not None:
        model = replace(model, init_from={name: _rooted(path) for name, path in model.init_from.items()})
    return replace(recipe, data=data, model=model)


def _rooted(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def overridden(overrides: Sequence[str]) -> set[str]:
    """The keys of ``--key.sub value`` and ``--key.sub=value`` arguments."""
    return {word[2:].partition("=")[0] for word in overrides if word.startswith("--")}


def value_of(key: str, overrides: Sequence[str]) -> str | None:
    """What ``--key value`` or ``--key=value`` gives; None where it is not there."""
    words = [part for word in overrides for part in (word.split("=", 1) if word.startswith("--") else [word])]
    found = [value for name, value in pairwise(words) if name == f"--{key}"]
    return found[-1] if found else None


def _recipe_parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="fcn train RECIPE.yaml", usage="fcn train RECIPE.yaml [--key.sub value ...]", exit_on_error=False
    )
    parser.add_argument("--config", action="config", help="the recipe (given by its position)")
    parser.add_class_arguments(Recipe)
    return parser


def _parse(parser: ArgumentParser, arguments: list[str], prefix: str) -> dict[str, Any]:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parsed = parser.instantiate(parser.parse_args(arguments))
    except Exception as error:  # jsonargparse wraps the errors of its parts in several types
        raise ConfigError(prefix + " ".join(str(error).split())) from None
    return {key: value for key, value in vars(parsed).items() if key != "config"}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _positive(key: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{key} must be at least 1, got {value}")
