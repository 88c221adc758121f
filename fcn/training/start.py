"""What training begins with: the network, its first weights, how images are prepared, rates that fit the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..data import SegmentationDataset
from ..data.preprocessing import CAFFE_VGG, EFFICIENTNET_LITE, IMAGENET, Preprocessing
from ..errors import ConfigError
from ..networks.models import FCN, ModelConfig, build_model
from ..recipes.config import DataConfig, LossConfig, NetworkConfig, OptimizerConfig, StagesConfig
from ..weights import load_pretrained_backbone, load_weights, prepared_for, start_from


def new_network(network: NetworkConfig, stride: int, data: SegmentationDataset, preprocessing: Preprocessing) -> FCN:
    """For the classes and channels of ``data``, with random weights."""
    if network.modalities and preprocessing.channels != 3 * len(network.modalities):
        raise ConfigError(
            f"model.modalities: {', '.join(network.modalities)} see 3 channels each, and the data have "
            f"{preprocessing.channels}"
        )
    model = build_model(
        ModelConfig(
            backbone=network.backbone,
            stride=stride,
            classes=len(data.classes),
            tasks=tuple((name, len(task.classes)) for name, task in data.tasks.items() if name),
            pad=network.pad,
            in_channels=3 if network.modalities else preprocessing.channels,
            dropout=network.dropout,
            at_once=network.at_once,
            upsampling=network.upsampling,
            last_upsampling=network.last_upsampling,
            truncate=network.truncate,
            modalities=tuple(network.modalities),
            fusion="mean" if network.modalities else "sum",
        )
    )
    if network.tune == "head":
        model.backbone.requires_grad_(False)
    return model


def first_weights(model: FCN, network: NetworkConfig, preprocessing: Preprocessing, previous: Path | None) -> None:
    """Give ``model`` the weights of the stage before or, in the first stage, of another network."""
    if previous is not None:
        model.init_from(load_weights(previous).model)
    elif network.init_from is not None:
        start_from(model, network.init_from, preprocessing)
    elif network.pretrained is not None:
        load_pretrained_backbone(model, network.pretrained, preprocessing)


def preprocessing_of(data: DataConfig, network: NetworkConfig, train_set: SegmentationDataset) -> Preprocessing:
    """As ``data.preprocessing`` and ``data.longest_side`` ask; levels of 16-bit images are those of the training images
    in any case."""
    prepared = _prepared(data, network, train_set)
    return prepared if data.longest_side is None else replace(prepared, longest_side=data.longest_side)


def _prepared(data: DataConfig, network: NetworkConfig, train_set: SegmentationDataset) -> Preprocessing:
    images = (train_set[index]["image"] for index in range(len(train_set)))
    if data.preprocessing == "weights":
        start = network.pretrained or network.init_from
        if not isinstance(start, str):
            raise ConfigError("data.preprocessing: weights is that of the file model.pretrained or model.init_from")
        return prepared_for(start).for_images(images)
    if data.preprocessing == "fit":
        return Preprocessing.fit(images)
    if data.preprocessing == "published":
        if train_set.published is None:
            raise ConfigError(f"data.preprocessing: there is no published one for {data.kind} data; take fit")
        return train_set.published.for_images(images)
    if train_set.published is not None and train_set.published.channels > 3:
        raise ConfigError(
            f"data.preprocessing: {data.preprocessing} is for colors, and {data.kind} data have "
            f"{train_set.published.channels} channels; take published or fit"
        )
    known = {"caffe_vgg": CAFFE_VGG, "imagenet": IMAGENET, "efficientnet_lite": EFFICIENTNET_LITE}
    return known[data.preprocessing].for_images(images)


def rates_for_loss(
    optimizer: OptimizerConfig, stages: StagesConfig, loss: LossConfig, pixels: Callable[[], float]
) -> tuple[OptimizerConfig, StagesConfig]:
    """Rates and decay as ``optimizer.rates_for`` asks. ``pixels()`` counts the labeled ones of an image (slow)."""
    own, meant = "mean" if loss.normalize else "sum", optimizer.rates_for
    if meant in ("loss", own):
        return optimizer, stages
    factor = pixels() if own == "mean" else 1 / pixels()
    return (
        replace(optimizer, weight_decay=optimizer.weight_decay / factor),
        replace(stages, lr=[rate * factor for rate in stages.lr]),
    )
