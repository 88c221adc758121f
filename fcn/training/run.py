"""Training in stages, FCN-32s -> FCN-16s -> FCN-8s (CVPR 2015, section 4.2), with Lightning as the engine.

A run folder holds ``recipe.yaml``, one folder per stage (``fcn32s``, ...) and, at the end, ``best.safetensors`` of the
last stage. A stage folder holds ``best.safetensors`` (highest validation mean IU), ``last.ckpt``, ``history.csv``,
TensorBoard events and, once finished, ``result.json``.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

from ..data import SegmentationDataset
from ..data.check import cheap_problems
from ..errors import ConfigError, DataError
from ..files import replacing
from ..recipes.config import LossConfig, Recipe, TrainerConfig, load_recipe, save_recipe
from .losses import Loss, labeled_pixels, median_frequency_weights
from .stage import BEST_FILE, LAST_FILE, Images, Stage, train_stage
from .start import first_weights, new_network, preprocessing_of, rates_for_loss

RECIPE_FILE = "recipe.yaml"


def train(recipe: Recipe) -> Path:
    """Run every stage of ``recipe`` and return the weights file of the last.

    Raises ``ConfigError`` if ``trainer.run_dir`` already holds a run, and ``Interrupted`` on Ctrl-C.
    """
    run_dir = Path(recipe.trainer.run_dir)
    if any(run_dir.glob(f"*/{LAST_FILE}")):
        raise ConfigError(
            f"trainer.run_dir: {run_dir} already holds a run; resume it with 'fcn train --resume {run_dir}', "
            "or give another folder with --trainer.run_dir"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    rank_zero_only(save_recipe)(recipe, run_dir / RECIPE_FILE)
    return _train_stages(recipe, run_dir)


def resume(run_dir: str | Path) -> Path:
    """Go on with an interrupted run (a finished one is left as it is) and return the weights file of the last stage."""
    run_dir = Path(run_dir)
    if not (run_dir / RECIPE_FILE).is_file():
        raise ConfigError(f"{run_dir}: not a run folder (it has no {RECIPE_FILE})")
    return _train_stages(load_recipe(run_dir / RECIPE_FILE), run_dir)


def stage_dir(run_dir: Path, stride: int) -> Path:
    return run_dir / f"fcn{stride}s"


def _train_stages(recipe: Recipe, run_dir: Path) -> Path:
    """The one place that takes a recipe apart: stages are given what they need."""
    data = recipe.data
    train_set, val_set = data.dataset(data.train_split), data.dataset(data.val_split)
    rank_zero_only(_say_what_is_odd)(train_set, val_set)
    if train_set.classes != val_set.classes:
        raise DataError(f"training and validation classes differ: {train_set.classes} and {val_set.classes}")
    _check_task_weights(recipe.loss, train_set)
    _check_processes(recipe.trainer, data.batch_size, len(val_set))
    images = Images(train_set, val_set, preprocessing_of(data, train_set))
    loss = Loss(recipe.loss, median_frequency_weights(train_set) if recipe.loss.class_weights != "none" else None)
    optimizer, stages = rates_for_loss(
        recipe.optimizer, recipe.stages, recipe.loss, partial(labeled_pixels, train_set, data.augment.crop)
    )

    previous: Path | None = None
    for stride, epochs, lr in zip(stages.stride, stages.epochs, stages.lr, strict=True):
        stage = Stage(stage_dir(run_dir, stride), stride, epochs, lr)
        if not stage.finished:
            train_stage(
                stage,
                partial(new_network, recipe.model, data=train_set, preprocessing=images.preprocessing),
                partial(first_weights, network=recipe.model, preprocessing=images.preprocessing, previous=previous),
                images,
                loss,
                data=data,
                optimizer=optimizer,
                options=recipe.trainer,
            )
        previous = stage.best
    assert previous is not None  # a recipe has at least one stage
    final = run_dir / BEST_FILE
    _copy(previous, final)
    return final


def _say_what_is_odd(train_set: SegmentationDataset, val_set: SegmentationDataset) -> None:
    for line in dict.fromkeys((*train_set.notes, *val_set.notes, *cheap_problems(train_set, val_set))):
        print(f"fcn train: {line}", file=sys.stderr)


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _check_task_weights(loss: LossConfig, train_set: SegmentationDataset) -> None:
    unknown = set(loss.task_weights) - set(train_set.tasks)
    if unknown:
        known = ", ".join(filter(None, train_set.tasks)) or "only one"
        raise ConfigError(f"loss.task_weights: these data have no task {min(unknown)!r}; their tasks: {known}")


def _check_processes(options: TrainerConfig, batch_size: int, images: int) -> None:
    """Every process needs an image of each step and of the validation."""
    processes = options.devices * options.nodes
    for key, count in (("data.batch_size", batch_size), ("images of data.val_split", images)):
        if count < processes:
            raise ConfigError(f"{key}: {count} cannot be shared by {processes} processes (trainer.devices x nodes)")
