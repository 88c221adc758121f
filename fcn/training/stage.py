"""One stage of a run: a network trained from its start, or from a checkpoint, to its best weights.

Every random choice is a function of (seed, stage, step), so a stage that was stopped and resumed, within an epoch too,
ends with bit-identical weights on the same machine with the same number of threads.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from ..data import SegmentationDataset, ShuffledBatches, evaluation_loader, training_loader
from ..data.preprocessing import Preprocessing
from ..data.tasks import underscored
from ..errors import ConfigError
from ..files import write_text
from ..networks.models import FCN
from ..recipes.config import DataConfig, OptimizerConfig, TrainerConfig
from ..weights.files import BEST_FILE
from .callbacks import LastCheckpoint, Progress, Records, StopIfNotFinite
from .checks import check_batch_normalization
from .losses import Loss
from .memory import freed_memory_kept
from .task import SegmentationTask, seed_of

LAST_FILE, RESULT_FILE = "last.ckpt", "result.json"


@dataclass(frozen=True)
class Images:
    """What a network is trained and validated on, and how it is prepared."""

    train: SegmentationDataset
    val: SegmentationDataset
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Stage:
    """The network of one stride, for so many epochs, from that rate on; its files are in ``folder``."""

    folder: Path
    stride: int
    epochs: int
    lr: float

    @property
    def best(self) -> Path:
        return self.folder / BEST_FILE

    @property
    def last(self) -> Path:
        return self.folder / LAST_FILE

    @property
    def epochs_done(self) -> int:
        """The epochs that the stage was finished with, by their number or early (``patience``); 0: it is not."""
        result = self.folder / RESULT_FILE
        return int(json.loads(result.read_text(encoding="utf-8"))["epochs"]) if result.exists() else 0


def stage_dir(run_dir: Path, stride: int) -> Path:
    return run_dir / f"fcn{stride}s"


@contextmanager
def _deterministic_meanwhile() -> Iterator[None]:
    """Lightning asks PyTorch for deterministic algorithms for the whole process; here while a stage trains.

    Every new tensor would also be filled, a pass over memory, lest somebody reads what nobody wrote: nobody does.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filled = settings.fill_uninitialized_memory
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


@freed_memory_kept()
@_deterministic_meanwhile()
def train_stage(
    stage: Stage,
    network: Callable[[int], FCN],
    start: Callable[[FCN], None],
    images: Images,
    loss: Loss,
    *,
    data: DataConfig,
    optimizer: OptimizerConfig,
    options: TrainerConfig,
) -> None:
    """Train the network of a stage, from its checkpoint where there is one.

    ``network(stride)`` makes it, with random weights; ``start(model)`` gives it those that training begins with.
    """
    seed = seed_of(options.seed, stage.stride)
    torch.manual_seed(seed)
    model = network(stage.stride)
    processes = options.devices * options.nodes
    longest_side = images.preprocessing.longest_side
    check_batch_normalization(model, images.train, data.augment, longest_side, data.batch_size, processes)
    begun = stage.last.exists()
    if not begun:
        start(model)
    checkpoint = _read_checkpoint(stage.last) if begun else {"global_step": 0}
    stage.folder.mkdir(parents=True, exist_ok=True)

    records = Records(stage.folder, images.train, images.preprocessing)
    callbacks: list[pl.Callback] = [
        StopIfNotFinite(), records, LastCheckpoint(stage.last, len(images.train)), Progress(f"FCN-{stage.stride}s")
    ]  # fmt: skip
    if options.patience is not None:
        watched = underscored("val", next(iter(images.train.tasks)), "mean_iu")
        callbacks.append(EarlyStopping(watched, mode="max", patience=options.patience, check_finite=False))
    trainer = _trainer(options, stage, callbacks)
    share = {"rank": trainer.global_rank, "processes": processes}
    per_epoch = len(ShuffledBatches(len(images.train), data.batch_size, seed, **share))
    steps_per_epoch = -(-per_epoch // options.accumulate)
    epoch, step = divmod(checkpoint["global_step"], steps_per_epoch)
    if epoch > stage.epochs:
        raise ConfigError(
            f"stages.epochs: FCN-{stage.stride}s has been trained for {epoch} already, got {stage.epochs}"
        )
    batches = training_loader(
        images.train,
        images.preprocessing,
        data.augment,
        batch_size=data.batch_size,
        seed=seed,
        first_step=epoch * per_epoch + step * options.accumulate,
        workers=data.workers,
        **share,
    )
    val_batches = evaluation_loader(
        images.val, images.preprocessing, batch_size=data.batch_size, workers=data.workers, **share
    )
    steps = stage.epochs * steps_per_epoch
    task = SegmentationTask(model, loss, optimizer, lr=stage.lr, steps=steps, seed=seed, average=options.average)
    if begun:
        _check_fits(checkpoint, task, stage.last)
    trainer.fit(task, batches, val_batches, ckpt_path=stage.last if begun else None, weights_only=True)
    result = {"stride": stage.stride, "epochs": stage.epochs, "steps": trainer.global_step, "best": records.best}
    rank_zero_only(write_text)(stage.folder / RESULT_FILE, json.dumps(result, indent=2))
    trainer.strategy.barrier()  # the next stage reads what the first process wrote


def _trainer(options: TrainerConfig, stage: Stage, callbacks: list[pl.Callback]) -> pl.Trainer:
    # Lightning's advice does not concern users of a recipe.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    return pl.Trainer(
        max_epochs=stage.epochs,
        precision=options.precision,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.nodes,
        # Each process keeps statistics of its own images; those of the first are saved.
        strategy="auto" if options.devices * options.nodes == 1 else DDPStrategy(broadcast_buffers=False),
        use_distributed_sampler=False,
        deterministic=True if options.deterministic else "warn",
        accumulate_grad_batches=options.accumulate,
        check_val_every_n_epoch=options.validate_every,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(stage.folder, name="", version=""),
        callbacks=callbacks,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=options.log_every,
    )


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged files
        why = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
        raise ConfigError(f"{path}: damaged checkpoint: {why}") from None
    wanted = {"global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"}
    missing = wanted.difference(checkpoint) if isinstance(checkpoint, dict) else wanted
    if missing:
        raise ConfigError(f"{path}: not a checkpoint of such a run (it has no {', '.join(sorted(missing))})")
    return dict(checkpoint)


def _check_fits(checkpoint: dict[str, Any], task: SegmentationTask, path: Path) -> None:
    """The network is the one that the run was begun with."""
    given, wanted = checkpoint["state_dict"], task.state_dict()
    wrong = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    wrong += [name for name in given if name not in wanted]
    if wrong:
        raise ConfigError(
            f"{path}: a checkpoint of another network than the recipe's: {min(wrong)} and {len(wrong) - 1} more differ"
        )
