"""What Lightning trains: a network, its loss and its optimizer."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ..data import ShuffledBatches
from ..data.tasks import split_labels, underscored
from ..evaluation.metrics import Metrics, SegmentationMetrics
from ..networks.models import FCN, parameter_groups
from ..recipes.config import OptimizerConfig
from .losses import SMALLEST, Loss


def seed_of(*numbers: int) -> int:
    """A seed that is a function of all of ``numbers``."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class SegmentationTask(pl.LightningModule):
    """A network, its loss and its optimizer."""

    train_loss: Tensor
    val_loss: Tensor

    def __init__(
        self, model: FCN, loss: Loss, options: OptimizerConfig, *, lr: float, steps: int, seed: int, average: float = 0
    ) -> None:
        """``lr``: the rate at the start, of ``steps`` steps. ``average``: decay of averaged weights; 0: none."""
        super().__init__()
        self.model, self.loss, self.options = model, loss, options
        self.lr, self.steps, self.seed = lr, steps, seed
        self.val_metrics = nn.ModuleList(SegmentationMetrics(n) for n in model.config.task_classes.values())
        self.average: AveragedModel | None = None
        if average:
            decay = get_ema_multi_avg_fn(average)
            self.average = AveragedModel(model, multi_avg_fn=decay, use_buffers=True).requires_grad_(False)
        # Sum and count; buffers, so that a checkpoint within an epoch keeps them.
        self.register_buffer("train_loss", torch.zeros(2))
        # Of each task, sums over the split: of losses, of what they are divided by, of the pixels' weights.
        self.register_buffer("val_loss", torch.zeros(3, len(self.val_metrics), dtype=torch.float64))

    @property
    def evaluated(self) -> FCN:
        """The network that is validated and kept."""
        return self.model if self.average is None else cast(FCN, self.average.module)

    def configure_optimizers(self) -> Any:
        options = self.options
        groups = parameter_groups(self.model, self.lr, options.weight_decay, options.head_rate, options.biases)
        optimizer: torch.optim.Optimizer
        if options.name == "sgd":
            optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=options.momentum)
        else:
            optimizer = torch.optim.AdamW(groups, lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rates and decay are those of the recipe, which may have changed since; moments those of the checkpoint."""
        fresh = self.configure_optimizers()
        schedule = checkpoint["lr_schedulers"][0]
        groups = checkpoint["optimizer_states"][0]["param_groups"]
        for saved, group in zip(groups, fresh["optimizer"].param_groups, strict=True):
            rate = group["initial_lr"]
            lr = rate * self._rate(schedule["last_epoch"])
            saved |= {"initial_lr": rate, "lr": lr, "weight_decay": group["weight_decay"]}
        schedule["base_lrs"] = fresh["lr_scheduler"]["scheduler"].base_lrs

    def _rate(self, step: int) -> float:
        """By which rates are multiplied."""
        options, done = self.options, min(step / self.steps, 1.0)
        rate = min(1.0, (step + 1) / (options.warmup + 1))
        if options.schedule == "poly":
            return float(rate * (1 - done) ** 0.9)
        return rate * 0.1 ** sum(done >= part for part in options.milestones) if options.schedule == "step" else rate

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_train_epoch_start(self) -> None:
        self.train_loss.zero_()
        # Lightning does this for samplers, not for batch samplers.
        loader = self.trainer.train_dataloader
        assert isinstance(loader, DataLoader)
        assert isinstance(loader.batch_sampler, ShuffledBatches)
        loader.batch_sampler.set_epoch(self.trainer.current_epoch)
        if self.trainer.current_epoch + 1 == self.trainer.max_epochs:
            self.trainer.check_val_every_n_epoch = 1  # the last epoch is always validated

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        number = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        # Dropout and sampled losses; different ones in each process.
        torch.manual_seed(seed_of(self.seed, number, *filter(None, [self.global_rank])))

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        sums = self.loss.sums(self.model, batch)
        totals, divisors, _ = self._over_processes(sums.detach().clone())
        divisors = divisors.clamp(min=SMALLEST)
        mean = (totals / divisors).sum()
        self.train_loss += torch.stack([mean, torch.ones_like(mean)])
        self.log("train_loss", mean, batch_size=1)
        # Gradients are averaged over processes; times their number that is the gradient of the whole batch.
        return {"loss": (sums[0] / divisors).sum() * self.trainer.world_size, "mean": mean}

    def _over_processes(self, sums: Tensor) -> Tensor:
        return cast(Tensor, self.trainer.strategy.reduce(sums, reduce_op="sum"))

    def on_validation_epoch_start(self) -> None:
        for metric in self.val_metrics:
            cast(SegmentationMetrics, metric).reset()
        self.val_loss.zero_()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for group in batch:
            scores, target = self.evaluated.task_scores(group["image"]), group["target"]
            for metric, own, labels in zip(self.val_metrics, scores.values(), split_labels(target), strict=True):
                size = (labels.shape[-2], labels.shape[-1])
                cast(SegmentationMetrics, metric).update(own.at(size).labels(), labels)
            self.val_loss += self.loss.group_sums(scores, target, self.model.config.stride)

    def on_validation_epoch_end(self) -> None:
        self.val_loss.copy_(self._over_processes(self.val_loss.clone()))
        for task, metrics in self.metrics().items():
            for name in ("mean_iu", "pixel_accuracy"):
                self.log(underscored("val", task, name), getattr(metrics, name))

    def metrics(self) -> dict[str, Metrics]:
        """Of the last validation, by task."""
        results = (cast(SegmentationMetrics, metric).compute() for metric in self.val_metrics)
        return dict(zip(self.model.config.task_classes, results, strict=True))
