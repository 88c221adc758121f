"""What happens around training: records and best weights, checkpoints and Ctrl-C, the progress bar."""

from __future__ import annotations

import csv
import math
import os
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor
from tqdm import tqdm

from ..data import SegmentationDataset
from ..data.preprocessing import Preprocessing
from ..data.tasks import underscored
from ..errors import ConfigError, Interrupted, NotFiniteError
from ..evaluation.collapse import classes_never_found, one_class_everywhere
from ..evaluation.tables import COLUMNS
from ..files import replacing
from ..weights import save_weights
from .interruption import Handlers, is_first_process


class Records(pl.Callback):
    """After each validation: a row of ``history.csv``, and ``best.safetensors`` when mean IU is the highest so far.

    Of several tasks, that of the first counts.
    """

    def __init__(self, folder: Path, data: SegmentationDataset, preprocessing: Preprocessing) -> None:
        self.folder, self.data, self.preprocessing = folder, data, preprocessing
        self.score = underscored(next(iter(data.tasks)), "mean_iu")
        self.rows: list[dict[str, float]] = []
        self.warned = False

    @property
    def best(self) -> dict[str, float]:
        """The row with the highest mean IU (the first of equals; nan is lowest)."""
        return max(self.rows, key=lambda row: -1.0 if math.isnan(row[self.score]) else row[self.score])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train_loss": _mean(pl_module.train_loss),
            "val_loss": _mean(pl_module.val_loss),
        }
        for task, metrics in pl_module.metrics().items():
            row |= {underscored(task, name): getattr(metrics, name) for name in COLUMNS}
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        self._warn_of_equal_scores(pl_module)
        self._warn_of_lost_classes(trainer, pl_module)
        if self.best is row:
            save_weights(
                self.folder / "best.safetensors",
                pl_module.evaluated,
                classes=self.data.classes,
                palette=self.data.palette,
                preprocessing=self.preprocessing,
                extra={"epoch": str(row["epoch"]), f"val_{self.score}": f"{row[self.score]:.6f}"},
            )
        self._write()

    def _warn_of_equal_scores(self, task: Any) -> None:
        config, weights = task.model.config, task.loss.config.task_weights
        for (name, classes), (total, _, weight) in zip(
            config.task_classes.items(), task.val_loss.T.tolist(), strict=True
        ):
            equal = math.log(classes)
            found = total / weights.get(name, 1.0) / weight if weight else math.nan
            if not self.warned and abs(found - equal) < 1e-3 * equal:
                self.warned = True
                warnings.warn(
                    f"FCN-{config.stride}s{name and f', {name}'}: the loss of a pixel is still {equal:.4f}, ln of the "
                    "number of classes: all scores are equal, nothing is learned. Rates for the sum of the pixels' "
                    "losses (about 1e-10) are far too small for their mean: see optimizer.rates_for, loss.normalize "
                    "and --preset.",
                    stacklevel=2,
                )

    def _warn_of_lost_classes(self, trainer: pl.Trainer, task: Any) -> None:
        """Once in a stage, when a third of it is over."""
        if self.warned or 3 * (trainer.current_epoch + 1) < (trainer.max_epochs or 1):
            return
        stride = task.model.config.stride
        for name, metrics in task.metrics().items():
            classes = self.data.tasks[name].classes
            found = one_class_everywhere(metrics, classes) or classes_never_found(metrics, classes)
            if found:
                self.warned = True
                warnings.warn(f"FCN-{stride}s{name and f', {name}'}: {found}", stacklevel=2)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]

    def _write(self) -> None:
        with (
            replacing(self.folder / "history.csv") as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)


class StopIfNotFinite(pl.Callback):
    """Ends training where a loss is infinite or not a number: before such an epoch is recorded or kept."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        _check_finite(trainer, pl_module, "the loss", outputs["mean"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        _check_finite(trainer, pl_module, "the validation loss", pl_module.val_loss[0])


def _check_finite(trainer: pl.Trainer, task: Any, what: str, *tensors: Tensor) -> None:
    for tensor in tensors:
        if not tensor.isfinite().all():
            found = f" is {float(tensor):g}" if tensor.numel() == 1 else " has values that are not finite"
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            raise NotFiniteError(
                f"FCN-{task.model.config.stride}s: {what}{found} after step {trainer.global_step}, "
                f"with a rate of {rate:g}"
            )


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` at the start and after each validated epoch.

    On Ctrl-C or SIGTERM also after the current step; then training stops. A second one stops at once and leaves the
    checkpoint that there is.
    """

    def __init__(self, path: Path, images: int) -> None:
        self.path, self.images = path, images
        self.stop = self.saving = False
        self.handlers = Handlers(self._on_signal)

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.handlers.install()
        if not self.path.exists():
            self._save(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        # After the last batch of an epoch come validation and the end of the epoch, which checks again. Gradients that
        # wait for more batches would be lost.
        complete = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if complete and not trainer.is_last_batch and self._stops(trainer):
            self._save(trainer)
            raise Interrupted

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        stops = self._stops(trainer)
        if stops or (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0:
            self._save(trainer)
        if stops:
            raise Interrupted

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        self.handlers.restore()

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What a step is depends on the number of training images."""
        if state["images"] != self.images:
            raise ConfigError(
                f"{self.path}: the run was begun with {state['images']} training images, and there are {self.images} "
                "now (data.root)"
            )

    def _stops(self, trainer: pl.Trainer) -> bool:
        """Whether any of the processes got a signal: they must agree on the step."""
        return trainer.strategy.reduce_boolean_decision(self.stop, all=False)

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.stop and not self.saving:
            raise Interrupted
        if not self.stop and is_first_process():
            # Not by print: a signal may come within one.
            os.write(2, b"\nStopping after this step, with a checkpoint. Once more: at once, with the one there is.\n")
        self.stop = True

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            _check_finite(trainer, trainer.lightning_module, "a weight", *trainer.lightning_module.parameters())
        self.saving = True
        with replacing(self.path) if trainer.is_global_zero else nullcontext(self.path) as partial:
            trainer.save_checkpoint(partial)  # in every process; the first writes
        self.saving = False


class Progress(pl.Callback):
    """One bar for the whole stage, with the loss and the last validation's mean IU."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shown: dict[str, str] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        total = int(trainer.num_training_batches) * (trainer.max_epochs or 1)
        self.bar = tqdm(
            total=total,
            initial=trainer.fit_loop.total_batch_idx + 1,
            desc=self.name,
            unit="batch",
            dynamic_ncols=True,
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.shown["loss"] = f"{float(outputs['mean']):.4g}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        for task, metrics in pl_module.metrics().items():
            self.shown[f"val {task}".strip() + " mean IU"] = f"{metrics.mean_iu:.3f}"
        self.bar.set_postfix(self.shown)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


def _mean(sums: Tensor) -> float:
    """The sum of all tasks' sums / counts; nan without a count."""
    return float((sums[0] / sums[1]).sum())
