"""Training in stages, FCN-32s -> FCN-16s -> FCN-8s (CVPR 2015, section 4.2), with Lightning as the engine.

A run folder holds ``recipe.yaml``, one folder per stage (``fcn32s``, ...) and, at the end, ``best.safetensors`` of the
last stage. A stage folder holds ``best.safetensors`` (highest validation mean IU), ``last.ckpt``, ``history.csv``,
TensorBoard events and, once finished, ``result.json``.

Every random choice is a function of (seed, stage, step), so a run that was stopped and resumed, within an epoch too,
ends with bit-identical weights on the same machine with the same number of threads.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from .callbacks import LastCheckpoint, Progress, Records
from .config import ConfigError, Recipe, load_recipe, save_recipe
from .data import DataError, SegmentationDataset, ShuffledBatches, evaluation_loader, training_loader
from .losses import SMALLEST, Loss, labeled_pixels, median_frequency_weights
from .metrics import Metrics, SegmentationMetrics
from .models import FCN, ModelConfig, build_model, parameter_groups
from .preprocessing import CAFFE_VGG, IMAGENET, Preprocessing
from .tasks import split_labels, underscored
from .weights import load_pretrained_backbone, load_weights, start_from

RECIPE_FILE, BEST_FILE, LAST_FILE, RESULT_FILE = "recipe.yaml", "best.safetensors", "last.ckpt", "result.json"


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
    train_set = recipe.data.dataset(recipe.data.train_split)
    val_set = recipe.data.dataset(recipe.data.val_split)
    if train_set.classes != val_set.classes:
        raise DataError(f"training and validation classes differ: {train_set.classes} and {val_set.classes}")
    _check_task_weights(recipe, train_set)
    _check_processes(recipe, len(val_set))
    preprocessing = _preprocessing(recipe, train_set)
    loss = Loss(recipe.loss, median_frequency_weights(train_set) if recipe.loss.class_weights != "none" else None)
    recipe = _with_rates_for_its_loss(recipe, train_set)

    best: Path | None = None
    for index in range(len(recipe.stages.stride)):
        folder = stage_dir(run_dir, recipe.stages.stride[index])
        if not (folder / RESULT_FILE).exists():
            _train_stage(recipe, index, folder, best, train_set, val_set, preprocessing, loss)
        best = folder / BEST_FILE
    assert best is not None  # a recipe has at least one stage
    final = run_dir / BEST_FILE
    _copy(best, final)
    return final


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    temporary = target.with_suffix(".tmp")
    shutil.copyfile(source, temporary)
    os.replace(temporary, target)


@rank_zero_only
def _write_json(values: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values, indent=2), encoding="utf-8")
    os.replace(temporary, path)


def _train_stage(
    recipe: Recipe,
    index: int,
    folder: Path,
    previous: Path | None,
    train_set: SegmentationDataset,
    val_set: SegmentationDataset,
    preprocessing: Preprocessing,
    loss: Loss,
) -> None:
    stride, epochs = recipe.stages.stride[index], recipe.stages.epochs[index]
    seed = _seed(recipe.trainer.seed, stride)
    torch.manual_seed(seed)
    model = _network(recipe, stride, train_set, preprocessing)
    last = folder / LAST_FILE
    if not last.exists():
        _start(model, recipe, preprocessing, previous)
    checkpoint = _read_checkpoint(last) if last.exists() else {"global_step": 0}
    folder.mkdir(parents=True, exist_ok=True)

    options = recipe.trainer
    processes = options.devices * options.nodes
    records = Records(folder, train_set, preprocessing)
    callbacks: list[pl.Callback] = [records, LastCheckpoint(last), Progress(f"FCN-{stride}s")]
    if options.patience is not None:
        watched = underscored("val", next(iter(train_set.tasks)), "mean_iu")
        callbacks.append(EarlyStopping(watched, mode="max", patience=options.patience, check_finite=False))
    _quiet_lightning()
    trainer = pl.Trainer(
        max_epochs=epochs,
        precision=options.precision,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.nodes,
        # Each process keeps statistics of its own images; those of the first are saved.
        strategy="auto" if processes == 1 else DDPStrategy(broadcast_buffers=False),
        use_distributed_sampler=False,
        deterministic=True if options.deterministic else "warn",
        accumulate_grad_batches=options.accumulate,
        check_val_every_n_epoch=options.validate_every,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=callbacks,
        enable_checkpointing=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=options.log_every,
    )
    share = {"rank": trainer.global_rank, "processes": processes}
    per_epoch = len(ShuffledBatches(len(train_set), recipe.data.batch_size, seed, **share))
    steps_per_epoch = -(-per_epoch // options.accumulate)
    epoch, step = divmod(checkpoint["global_step"], steps_per_epoch)
    batches = training_loader(
        train_set,
        preprocessing,
        recipe.data.augment,
        batch_size=recipe.data.batch_size,
        seed=seed,
        first_step=epoch * per_epoch + step * options.accumulate,
        workers=recipe.data.workers,
        **share,
    )
    val_batches = evaluation_loader(
        val_set, preprocessing, batch_size=recipe.data.batch_size, workers=recipe.data.workers, **share
    )
    task = SegmentationTask(model, loss, recipe, lr=recipe.stages.lr[index], steps=epochs * steps_per_epoch, seed=seed)
    trainer.fit(task, batches, val_batches, ckpt_path=last if last.exists() else None, weights_only=True)
    _write_json({"stride": stride, "steps": trainer.global_step, "best": records.best}, folder / RESULT_FILE)
    trainer.strategy.barrier()  # the next stage reads what the first process wrote


class SegmentationTask(pl.LightningModule):
    """A network, its loss and its optimizer."""

    train_loss: Tensor
    val_loss: Tensor

    def __init__(self, model: FCN, loss: Loss, recipe: Recipe, *, lr: float, steps: int, seed: int) -> None:
        super().__init__()
        self.model, self.loss, self.recipe = model, loss, recipe
        self.lr, self.steps, self.seed = lr, steps, seed
        self.val_metrics = nn.ModuleList(SegmentationMetrics(n) for n in model.config.task_classes.values())
        self.average: AveragedModel | None = None
        if recipe.trainer.average:
            decay = get_ema_multi_avg_fn(recipe.trainer.average)
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
        options = self.recipe.optimizer
        groups = parameter_groups(self.model, self.lr, options.weight_decay)
        optimizer: torch.optim.Optimizer
        if options.name == "sgd":
            optimizer = torch.optim.SGD(groups, lr=self.lr, momentum=options.momentum)
        else:
            optimizer = torch.optim.AdamW(groups, lr=self.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        """By which rates are multiplied."""
        options, done = self.recipe.optimizer, min(step / self.steps, 1.0)
        if options.schedule == "poly":
            return float((1 - done) ** 0.9)
        return 0.1 ** sum(done >= part for part in options.milestones) if options.schedule == "step" else 1.0

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
        torch.manual_seed(_seed(self.seed, number, *filter(None, [self.global_rank])))

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
                cast(SegmentationMetrics, metric).update(own.labels(), labels)
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


def _network(recipe: Recipe, stride: int, data: SegmentationDataset, preprocessing: Preprocessing) -> FCN:
    network = recipe.model
    if network.modalities and preprocessing.channels != 3 * len(network.modalities):
        raise ConfigError(
            f"model.modalities: {', '.join(network.modalities)} see 3 channels each, and {recipe.data.kind} data have "
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
            modalities=tuple(network.modalities),
        )
    )
    if network.tune == "head":
        model.backbone.requires_grad_(False)
    return model


def _start(model: FCN, recipe: Recipe, preprocessing: Preprocessing, previous: Path | None) -> None:
    """The weights that training begins with: those of the stage before or, of the first stage, of another network."""
    if previous is not None:
        model.init_from(load_weights(previous).model)
    elif recipe.model.init_from is not None:
        start_from(model, recipe.model.init_from, preprocessing)
    elif recipe.model.pretrained is not None:
        load_pretrained_backbone(model, recipe.model.pretrained)


def _with_rates_for_its_loss(recipe: Recipe, train_set: SegmentationDataset) -> Recipe:
    """Rates and decay as ``optimizer.rates_for`` asks."""
    own, meant = "mean" if recipe.loss.normalize else "sum", recipe.optimizer.rates_for
    if meant in ("loss", own):
        return recipe
    pixels = labeled_pixels(train_set, recipe.data.augment.crop)
    factor = pixels if own == "mean" else 1 / pixels
    return replace(
        recipe,
        stages=replace(recipe.stages, lr=[rate * factor for rate in recipe.stages.lr]),
        optimizer=replace(recipe.optimizer, weight_decay=recipe.optimizer.weight_decay / factor),
    )


def _check_task_weights(recipe: Recipe, train_set: SegmentationDataset) -> None:
    unknown = set(recipe.loss.task_weights) - set(train_set.tasks)
    if unknown:
        known = ", ".join(filter(None, train_set.tasks)) or "only one"
        raise ConfigError(f"loss.task_weights: {recipe.data.kind} has no task {min(unknown)!r}; its tasks: {known}")


def _check_processes(recipe: Recipe, images: int) -> None:
    """Every process needs an image of each step and of the validation."""
    processes = recipe.trainer.devices * recipe.trainer.nodes
    for key, count in (("data.batch_size", recipe.data.batch_size), ("images of data.val_split", images)):
        if count < processes:
            raise ConfigError(f"{key}: {count} cannot be shared by {processes} processes (trainer.devices x nodes)")


def _preprocessing(recipe: Recipe, train_set: SegmentationDataset) -> Preprocessing:
    if recipe.data.preprocessing == "fit":
        return Preprocessing.fit(train_set[index]["image"] for index in range(len(train_set)))
    if recipe.data.preprocessing == "published":
        if train_set.published is None:
            raise ConfigError(f"data.preprocessing: there is no published one for {recipe.data.kind} data; take fit")
        return train_set.published
    if train_set.published is not None and train_set.published.channels > 3:
        raise ConfigError(
            f"data.preprocessing: {recipe.data.preprocessing} is for colors, and {recipe.data.kind} data have "
            f"{train_set.published.channels} channels; take published or fit"
        )
    return {"caffe_vgg": CAFFE_VGG, "imagenet": IMAGENET}[recipe.data.preprocessing]


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for damaged files
        raise ConfigError(f"{path}: damaged checkpoint: {str(error).splitlines()[0]}") from None
    return checkpoint


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _quiet_lightning() -> None:
    """Lightning's advice does not concern users of a recipe."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
