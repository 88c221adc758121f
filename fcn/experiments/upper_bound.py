"""What labels lose when they are downsampled and upsampled again: no network of that stride can do better."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fcn_kernels import BilinearGrid

from ..arguments import count
from ..data import VOID
from ..evaluation.metrics import SegmentationMetrics
from ..evaluation.pictures import INK, plain_axes
from ..networks.scores import Scores
from .result import Cell, Result, Table
from .trials import add_arguments as add_data_arguments
from .trials import dataset_of_one_task, recipe_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = {128: 50.9, 64: 73.3, 32: 86.1, 16: 92.8, 8: 96.4, 4: 98.5}
"""Mean IU of the appendix of CVPR 2015 (arXiv, second version), on PASCAL VOC."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_arguments(parser)
    parser.add_argument("--split", help="of the data (default: its validation split)")
    parser.add_argument("--factors", nargs="+", type=count, default=list(PAPER), help="(default: 128 64 32 16 8 4)")


def shares(target: np.ndarray, classes: int, factor: int) -> Tensor:
    """The part of each class in the labeled pixels of each ``factor`` x ``factor`` cell, ``[1, classes, h, w]``.

    A cell at the edge may hold fewer pixels; one without labeled pixels has no class.
    """
    height, width = (-(-length // factor) for length in target.shape)
    cells = np.arange(target.shape[0])[:, None] // factor * width + np.arange(target.shape[1]) // factor
    labeled = target != VOID
    counts = np.bincount(cells[labeled] * classes + target[labeled], minlength=height * width * classes)
    counts = counts.reshape(1, height, width, classes).transpose(0, 3, 1, 2).astype(np.float32)
    return torch.from_numpy(counts / np.maximum(counts.sum(1, keepdims=True), 1))


def restored(target: np.ndarray, classes: int, factor: int) -> tuple[Tensor, Tensor]:
    """Labels ``[1, H, W]`` from ``shares``: each cell's most frequent class; the largest bilinearly upsampled share."""
    coarse = shares(target, classes, factor)
    rows, columns = target.shape
    repeated = coarse.argmax(1).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    height, width = coarse.shape[2:]
    smooth = Scores(coarse, BilinearGrid.interpolate((height, width), (height * factor, width * factor))).labels()
    return repeated[:, :rows, :columns], smooth[:, :rows, :columns]


def run(options: argparse.Namespace) -> Result:
    if min(options.factors) < 1:
        raise ValueError(f"--factors must be at least 1, got {options.factors}")
    recipe = recipe_of(options)
    data = recipe.data
    split = options.split or data.val_split
    dataset = dataset_of_one_task(recipe, split)
    classes = len(dataset.classes)
    metrics = {factor: (SegmentationMetrics(classes), SegmentationMetrics(classes)) for factor in options.factors}
    for index in tqdm(range(len(dataset)), desc="upper bound", unit="image", dynamic_ncols=True):
        target = dataset[index]["target"]
        truth = torch.from_numpy(target)[None]
        for factor, pair in metrics.items():
            for metric, labels in zip(pair, restored(target, classes, factor), strict=True):
                metric.update(labels, truth)
    bounds = {factor: tuple(100 * each.compute().mean_iu for each in pair) for factor, pair in metrics.items()}
    rows: list[list[Cell]] = [[str(factor), *bounds[factor], PAPER.get(factor)] for factor in bounds]
    table = Table(
        f"Mean IU, %: {data.kind}, split {split}, {len(dataset)} images",
        ("factor", "repeated", "bilinear", "paper, PASCAL VOC"),
        rows,
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        factors = sorted(bounds, reverse=True)
        for place, (name, color) in enumerate((("repeated", "#8a8a8a"), ("bilinear", "#1f6fb4"))):
            axes.plot(factors, [bounds[factor][place] for factor in factors], "o-", color=color, label=name)
        known = [factor for factor in factors if factor in PAPER]
        axes.plot(known, [PAPER[factor] for factor in known], "o--", color="#d1495b", label="paper, PASCAL VOC")
        axes.set_xscale("log", base=2)
        axes.invert_xaxis()
        axes.set_xticks(factors, [str(factor) for factor in factors])
        axes.set_xlabel("factor", color=INK)
        axes.set_ylabel("mean IU, %", color=INK)
        axes.legend(frameon=False, labelcolor=INK)
        plain_axes(axes)

    return Result(
        "Labels downsampled and upsampled again",
        [table],
        draw,
        (
            "Each cell keeps the share of every class in its labeled pixels. Repeated: the most frequent class fills "
            "the cell. Bilinear: shares are upsampled as a network's scores are. The paper does not tell its way.",
        ),
    )
