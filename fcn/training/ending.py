"""What a run shows of itself: the first batch as the network sees it, and at the end a page."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data import Batch, SegmentationDataset
from ..data.files import eight_bits
from ..data.preprocessing import Preprocessing
from ..data.tasks import Task, split_labels, underscored
from ..evaluation.collapse import classes_never_found, one_class_everywhere
from ..evaluation.metrics import Metrics, SegmentationMetrics, metrics_from_confusion
from ..evaluation.overlays import blend
from ..evaluation.pictures import save_confusion, save_curves, save_panels
from ..evaluation.report import Example, Report, save_report
from ..inference.predictor import Predictor
from ..recipes.config import RECIPE_FILE, load_recipe
from ..weights.files import BEST_FILE
from .stage import stage_dir

PAGE = "report.html"
MOST_SHOWN = 8
"""Images of a batch that are drawn."""


def save_batch(path: Path, batch: Batch, preprocessing: Preprocessing, meaning: Task) -> None:
    """Draw images of a batch, as augmented, with their labels of the first task."""
    rows = []
    group = max(batch, key=lambda each: len(each["image"]))  # of one size
    target = next(iter(split_labels(group["target"])))
    for image, labels in list(zip(group["image"], target, strict=True))[:MOST_SHOWN]:
        picture = _picture(image, preprocessing)
        rows.append([picture, blend(picture, labels.numpy(), meaning.palette)])
    titles = ["image", "labels"] * min(2, len(rows))
    save_panels(path, _in_pairs(rows), titles, meaning.classes, meaning.palette)


def _in_pairs(rows: Sequence[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Two images with their labels in a row."""
    if len(rows) < 2:
        return list(rows)
    return [rows[index] + rows[index + 1] for index in range(0, len(rows) - 1, 2)]


def _picture(image: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 ``[H, W, 3]`` of a preprocessed ``[C, H, W]``."""
    colors = 1 if preprocessing.channel_order == "gray" else 3
    mean, std = (torch.tensor(values[:colors])[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    pixels = (image[:colors] * std + mean) * preprocessing.scale
    if preprocessing.channel_order == "bgr":
        pixels = pixels.flip(0)
    shown = pixels.expand(3, -1, -1).clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(shown.permute(1, 2, 0).numpy())


def write_page(run_dir: Path, progress: bool = True) -> tuple[Path, Metrics, Task]:
    """``report.html`` of a finished run, from its recipe, its best weights and its validation images; with the metrics
    and what the classes are. Of several tasks the first."""
    recipe = load_recipe(run_dir / RECIPE_FILE)
    data, stages = recipe.data, recipe.stages
    longer = [*stages.epochs[:-1], 2 * stages.epochs[-1]]
    predictor = Predictor(run_dir / BEST_FILE, precision="float32")
    dataset = data.dataset(data.val_split)
    task, meaning = next(iter(predictor.tasks.items()))
    scored = Scored(predictor, dataset, len(meaning.classes), progress)
    metrics = scored.metrics
    figures = {"Learning curves": run_dir / "curves.png", "Confusion": run_dir / "confusion.png"}
    save_curves(figures["Learning curves"], _histories(run_dir, stages.stride, task))
    save_confusion(figures["Confusion"], metrics.confusion, meaning.classes)
    train_set = data.dataset(data.train_split)
    warnings = [found(metrics, meaning.classes) for found in (one_class_everywhere, classes_never_found)]
    config = predictor.model.config
    report = Report(
        title=f"{run_dir.name}: FCN-{config.stride}s, {config.backbone}" + (f", {task}" if task else ""),
        metrics=metrics,
        classes=meaning.classes,
        palette=meaning.palette,
        warnings=[line for line in warnings if line],
        facts={
            "data": f"{data.kind}, {data.root or 'in the nilearn package'}",
            "trained on": f"{len(train_set)} images ({data.train_split})",
            "validated on": f"{len(dataset)} images ({data.val_split})",
            "stages": ", ".join(
                f"FCN-{stride}s for {epochs} epochs"
                for stride, epochs in zip(stages.stride, stages.epochs, strict=True)
            ),
            "parameters": f"{sum(p.numel() for p in predictor.model.parameters()):,}",
            "recipe": str(run_dir / RECIPE_FILE),
        },
        figures=figures,
        examples=scored.examples(),
        commands={
            "Label images": f"fcn predict {run_dir} IMAGES --out labels",
            **(
                {"Score on images kept apart": f"fcn evaluate {run_dir} --split {data.test_split}"}
                if data.test_split != data.val_split
                else {}
            ),
            "Train longer": f"fcn train --resume {run_dir} --stages.epochs '{longer}'",
        },
    )
    save_report(run_dir / PAGE, report)
    return run_dir / PAGE, metrics, meaning


@dataclass
class _Result:
    index: int
    mean_iu: float


class Scored:
    """The labels of a data set's first task, scored over all images and image by image."""

    def __init__(self, predictor: Predictor, dataset: SegmentationDataset, classes: int, progress: bool) -> None:
        self.predictor, self.dataset = predictor, dataset
        whole = SegmentationMetrics(classes)
        self.results: list[_Result] = []
        for index in tqdm(range(len(dataset)), desc="report", unit="image", disable=not progress, dynamic_ncols=True):
            _, truth, labels = self._at(index)
            alone = SegmentationMetrics(classes)
            alone.update(torch.from_numpy(labels), torch.from_numpy(truth))
            whole.confusion += alone.confusion
            mean_iu = _of(alone).mean_iu
            if not math.isnan(mean_iu):  # an image that is all void has none
                self.results.append(_Result(index, mean_iu))
        self.metrics = _of(whole)

    def examples(self) -> dict[str, Example]:
        """The best, the median and the worst, by their own mean IU."""
        order = sorted(self.results, key=lambda result: -result.mean_iu)
        if not order:
            return {}
        chosen = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
        return {what: self._example(result) for what, result in chosen.items()}

    def _at(self, index: int) -> tuple[Any, np.ndarray, np.ndarray]:
        sample = self.dataset[index]
        several = self.predictor(sample["image"])
        first = [np.ascontiguousarray(each.reshape(-1, *each.shape[-2:])[0]) for each in (sample["target"], several)]
        return sample, first[0], first[1]

    def _example(self, result: _Result) -> Example:
        sample, truth, labels = self._at(result.index)
        image = sample["image"]
        image = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image[:, :, :3]
        colors = eight_bits(image, self.predictor.preprocessing.levels).astype(np.uint8, copy=False)
        return Example(sample["name"], colors, truth, labels, result.mean_iu)


def _of(counted: SegmentationMetrics) -> Metrics:
    """Of this process alone: the others, where there are some, have ended."""
    return metrics_from_confusion(counted.confusion[0])


def _histories(run_dir: Path, strides: Sequence[int], task: str) -> dict[str, list[dict[str, float]]]:
    """The rows of each stage's ``history.csv``."""

    def rows(path: Path) -> Iterator[dict[str, float]]:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values = {key: float(value) for key, value in row.items()}
                yield values | {"mean_iu": values[underscored(task, "mean_iu")]}

    return {f"FCN-{s}s": list(rows(stage_dir(run_dir, s) / "history.csv")) for s in strides}
