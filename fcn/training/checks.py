"""What would stop a training later, found before its first step."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import torch
from pytorch_lightning.accelerators import CUDAAccelerator, MPSAccelerator
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data import Augmentation, SegmentationDataset
from ..data.resizing import reduced_size
from ..errors import ConfigError
from ..networks.models import FCN
from ..recipes.config import LossConfig, TrainerConfig

LOOKED_AT = 100
"""So many training images are asked for their size."""
LAUNCHED = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE", "MASTER_ADDR")
"""One of these is in the environment of a process that some launcher started."""


def check_machine(options: TrainerConfig) -> None:
    """The accelerator and as many devices as are asked for are here, and several machines know of each other."""
    gpus = CUDAAccelerator.auto_device_count() or int(MPSAccelerator.is_available())
    if options.accelerator == "gpu" and not gpus:
        raise ConfigError("trainer.accelerator: PyTorch finds no GPU here; take cpu, or auto: a GPU where there is one")
    if options.accelerator != "cpu" and 0 < gpus < options.devices:
        raise ConfigError(f"trainer.devices: {options.devices} are asked for, and there are {gpus} GPUs here")
    if options.nodes > 1 and not any(name in os.environ for name in LAUNCHED):
        raise ConfigError(
            f"trainer.nodes: {options.nodes} machines must be told of each other: start with torchrun or by a batch "
            "system (see docs/training.md)"
        )


def check_task_weights(loss: LossConfig, train_set: SegmentationDataset) -> None:
    unknown = set(loss.task_weights) - set(train_set.tasks)
    if unknown:
        known = ", ".join(filter(None, train_set.tasks)) or "only one"
        raise ConfigError(f"loss.task_weights: these data have no task {min(unknown)!r}; their tasks: {known}")


def check_processes(options: TrainerConfig, batch_size: int, images: int) -> None:
    """Every process needs an image of each step and of the validation."""
    processes = options.devices * options.nodes
    for key, count in (("data.batch_size", batch_size), ("images of data.val_split", images)):
        if count < processes:
            raise ConfigError(f"{key}: {count} cannot be shared by {processes} processes (trainer.devices x nodes)")


def check_batch_normalization(
    model: FCN,
    train_set: SegmentationDataset,
    augment: Augmentation,
    longest_side: int | None,
    batch_size: int,
    processes: int,
) -> None:
    """A batch normalization needs two numbers of a channel: an image alone must be larger than one cell of its maps."""
    if not any(isinstance(layer, _BatchNorm) and layer.training for layer in model.modules()):
        return
    sizes = _sizes(train_set, augment, longest_side)
    rest = len(train_set) % batch_size
    batches = {rest, batch_size} if len(train_set) >= batch_size else {rest}
    alone = len(sizes) > 1 or any(processes <= images < 2 * processes for images in batches)
    height, width = min(sizes, key=lambda size: size[0] * size[1])
    if alone and not _normalizes(model.backbone, (1, model.backbone.in_channels, height, width)):
        raise ConfigError(
            f"data.batch_size: a batch may be one image of {height} x {width} pixels (the last of an epoch holds "
            f"{rest or batch_size} of {len(train_set)}). Its smallest map is a single cell, and batch normalization "
            "needs two: take another batch_size, larger images or a larger data.augment.crop"
        )


def _sizes(train_set: SegmentationDataset, augment: Augmentation, longest_side: int | None) -> set[tuple[int, int]]:
    """Heights and widths that training may see; of data of many images, those of some."""
    if augment.crop is not None:
        return {augment.crop}
    sizes = set()
    for index in range(0, len(train_set), -(-len(train_set) // LOOKED_AT)):
        height, width = reduced_size(train_set[index]["target"].shape[-2:], longest_side)
        sizes |= {(max(1, round(height * factor)), max(1, round(width * factor))) for factor in augment.scale}
    return sizes


def _normalizes(backbone: nn.Module, shape: Sequence[int]) -> bool:
    try:
        copy.deepcopy(backbone).to("meta")(torch.empty(*shape, device="meta"))
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            return False
        raise
    return True
