"""Training in stages, FCN-32s -> FCN-16s -> FCN-8s (CVPR 2015, section 4.2), with Lightning as the engine.

A run folder holds ``recipe.yaml``, one folder per stage (``fcn32s``, ...) and, at the end, ``best.safetensors`` of the
last stage. A stage folder holds ``best.safetensors`` (highest validation mean IU), ``last.ckpt``, ``history.csv``,
TensorBoard events and, once finished, ``result.json``.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from ..data import SegmentationDataset, training_loader
from ..data.check import cheap_problems
from ..data.tasks import Task, classes_fit
from ..errors import ConfigError, DataError, NotFiniteError
from ..files import replacing
from ..recipes.config import RECIPE_FILE, DataConfig, Recipe, StagesConfig, load_recipe, overridden, rooted, save_recipe
from ..weights.files import BEST_FILE
from .checks import check_machine, check_processes, check_task_weights
from .ending import save_batch
from .interruption import interruptible, is_first_process
from .losses import Loss, class_weights, labeled_pixels
from .stage import LAST_FILE, Images, Stage, stage_dir, train_stage
from .start import first_weights, new_network, preprocessing_of, rates_for_loss

AT_RESUME = (
    "data.root",
    "data.workers",
    "stages.epochs",
    "stages.lr",
    "optimizer.weight_decay",
    "trainer.accelerator",
    "trainer.deterministic",
    "trainer.log_every",
    "trainer.patience",
    "trainer.validate_every",
)
"""Keys that may be changed when a run goes on; what was trained by the others would not fit."""


def train(recipe: Recipe, draw: bool = False) -> Path:
    """Run every stage of ``recipe`` and return the weights file of the last. ``draw``: the first batch too, as
    ``batch.png``.

    Raises ``ConfigError`` if ``trainer.run_dir`` already holds a run, ``NotFiniteError`` for a loss that is infinite or
    not a number, and ``Interrupted`` on Ctrl-C or SIGTERM.
    """
    run_dir = Path(recipe.trainer.run_dir).expanduser()
    with _alone_in(run_dir), interruptible():
        if any(run_dir.glob(f"*/{LAST_FILE}")):
            raise ConfigError(
                f"trainer.run_dir: {run_dir} already holds a run; resume it with 'fcn train --resume {run_dir}', "
                "or give another folder with --trainer.run_dir"
            )
        return _train_stages(recipe, run_dir, draw)


def resume(run_dir: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Go on with an interrupted run, or with a finished one for more epochs, and return the weights file of the last
    stage. A finished run is left as it is.

    overrides: ``--key.sub value`` pairs of the keys ``AT_RESUME``, which become part of the run's recipe.
    """
    run_dir = Path(run_dir).expanduser()
    path = run_dir / RECIPE_FILE
    if not path.is_file():
        raise ConfigError(f"{run_dir}: not a run folder (it has no {RECIPE_FILE})")
    fixed = overridden(overrides) - set(AT_RESUME)
    if fixed:
        raise ConfigError(f"{min(fixed)} cannot be changed when a run goes on; these can: {', '.join(AT_RESUME)}")
    with _alone_in(run_dir), interruptible():
        return _train_stages(load_recipe(path, overrides), run_dir)


@contextmanager
def _alone_in(run_dir: Path) -> Iterator[None]:
    """Two runs in one folder would write over each other's files. The lock goes with the process, however it ends."""
    if not is_first_process():
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run_dir / ".lock", timeout=0):
            yield
    except Timeout:
        raise ConfigError(f"trainer.run_dir: another process is training in {run_dir}") from None


def _train_stages(recipe: Recipe, run_dir: Path, draw: bool = False) -> Path:
    """The one place that takes a recipe apart: stages are given what they need."""
    data = recipe.data
    check_machine(recipe.trainer)
    train_set, val_set = data.dataset(data.train_split), data.dataset(data.val_split)
    rank_zero_only(_say_what_is_odd)(train_set, val_set)
    if not classes_fit(val_set.classes, train_set.classes):
        raise DataError(
            f"training and validation classes differ: {', '.join(train_set.classes)} and {', '.join(val_set.classes)} "
            "(in a folder of data, classes.txt names them for all splits)"
        )
    check_task_weights(recipe.loss, train_set)
    check_processes(recipe.trainer, data.batch_size, len(val_set))
    images = Images(train_set, val_set, preprocessing_of(data, recipe.model, train_set))
    loss = Loss(recipe.loss, class_weights(train_set, recipe.loss.class_weights))
    optimizer, rates = rates_for_loss(
        recipe.optimizer,
        recipe.stages,
        recipe.loss,
        partial(labeled_pixels, train_set, data.augment.crop, images.preprocessing.longest_side),
    )
    stages = [
        Stage(stage_dir(run_dir, stride), stride, epochs, lr)
        for stride, epochs, lr in zip(rates.stride, rates.epochs, rates.lr, strict=True)
    ]
    _check_epochs(stages)
    rank_zero_only(save_recipe)(rooted(recipe), run_dir / RECIPE_FILE)

    if draw:
        rank_zero_only(_draw_batch)(run_dir, images, data)
    previous: Path | None = None
    for stage in stages:
        if stage.epochs_done < stage.epochs:
            try:
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
            except NotFiniteError as error:
                raise NotFiniteError(f"{error}. {_lower_rate(recipe.stages, stage, run_dir)}") from None
        previous = stage.best
    assert previous is not None  # a recipe has at least one stage
    final = run_dir / BEST_FILE
    _copy(previous, final)
    return final


def _draw_batch(run_dir: Path, images: Images, data: DataConfig) -> None:
    batches = training_loader(images.train, images.preprocessing, data.augment, batch_size=data.batch_size, seed=0)
    first = next(iter(images.train.tasks.values()))
    save_batch(run_dir / "batch.png", next(iter(batches)), images.preprocessing, Task(first.classes, first.palette))


def _lower_rate(stages: StagesConfig, stage: Stage, run_dir: Path) -> str:
    """Advice, with the command."""
    rates = list(stages.lr)
    rates[stages.stride.index(stage.stride)] /= 10
    return (
        "Lower the rate and go on from the last checkpoint, for example with: "
        f"fcn train --resume {run_dir} --stages.lr '{rates}'"
    )


def _check_epochs(stages: Sequence[Stage]) -> None:
    """Only the last stage that was begun can go on: the next one started from its best weights."""
    for stage in stages:
        if stage.epochs < stage.epochs_done:
            raise ConfigError(
                f"stages.epochs: FCN-{stage.stride}s has been trained for {stage.epochs_done} already, "
                f"got {stage.epochs}"
            )
    for stage, following in pairwise(stages):
        if following.last.exists() and stage.epochs_done < stage.epochs:
            raise ConfigError(
                f"stages.epochs: FCN-{stage.stride}s cannot go on, FCN-{following.stride}s has been trained from it; "
                f"leave it at {stage.epochs_done}"
            )


def _say_what_is_odd(train_set: SegmentationDataset, val_set: SegmentationDataset) -> None:
    for line in dict.fromkeys((*train_set.notes, *val_set.notes, *cheap_problems(train_set, val_set))):
        print(f"fcn train: {line}", file=sys.stderr)


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
