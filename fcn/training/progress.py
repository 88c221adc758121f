"""How far a run is: a bar in a terminal, and a line for each validation in a pipe or a file."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import pytorch_lightning as pl
from tqdm import tqdm


class Progress(pl.Callback):
    """One bar for a stage, of which ``later`` epochs follow in other stages: epoch, loss, the last validation's mean IU
    (of several tasks, the first's) in percent, and the time that is left of the whole run. It fits 50 columns."""

    def __init__(self, name: str, later: int) -> None:
        self.name, self.later = name, later
        self.loss = self.score = math.nan

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.per_epoch, self.epochs = int(trainer.num_training_batches), trainer.max_epochs or 1
        self.first = self.done = trainer.fit_loop.total_batch_idx + 1
        self.began = time.monotonic()
        self.lines = trainer.is_global_zero and not sys.stderr.isatty()
        self.bar = tqdm(
            total=self.per_epoch * self.epochs,
            initial=self.first,
            dynamic_ncols=True,
            bar_format="{desc} |{bar}| {postfix[0]}",
            postfix=[""],
            disable=self.lines or not trainer.is_global_zero,
        )
        self._show()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.loss = float(outputs["mean"])
        self.done += 1
        self._show()
        self.bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.score = next(iter(pl_module.metrics().values())).mean_iu
        self._show()
        if self.lines:
            print(f"{self._where()}: {self._state()}", file=sys.stderr, flush=True)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if hasattr(self, "bar"):
            self.bar.close()

    def _show(self) -> None:
        self.bar.set_description_str(self._where(), refresh=False)
        self.bar.postfix = [self._state()]

    def _where(self) -> str:
        epoch = min(max(self.done - 1, 0) // self.per_epoch + 1, self.epochs)
        return f"{self.name} {epoch}/{self.epochs}"

    def _state(self) -> str:
        parts = [
            "" if math.isnan(self.loss) else f"loss {self.loss:.2g}",
            "" if math.isnan(self.score) else f"IU {100 * self.score:.1f}",
            self._left(),
        ]
        return " ".join(filter(None, parts))

    def _left(self) -> str:
        """Of this stage and the later ones, whose epochs are taken to last as long."""
        taken = self.done - self.first
        if not taken:
            return ""
        batches = self.per_epoch * (self.epochs + self.later) - self.done
        return f"left {tqdm.format_interval((time.monotonic() - self.began) / taken * batches)}"
