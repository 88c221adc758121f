"""Training on whole images against sampling the loss (CVPR 2015, section 4.4 and figure 5)."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..arguments import probability
from ..evaluation.pictures import INK, plain_axes
from .result import Cell, Result, Table
from .trials import add_training_arguments, best_weights, described, only_stage, recipe_of, run_folder, run_once, score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..recipes.config import Recipe

COLORS = ("#1f6fb4", "#e0a030", "#d1495b", "#8a8a8a")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser)
    parser.add_argument(
        "--probabilities", nargs="+", type=probability, default=[1.0, 0.5, 0.25], help="(default: 1 0.5 0.25)"
    )
    parser.add_argument("--stride", type=int, choices=(32, 16, 8, 4), default=32, help="of the network (default: 32)")


def sampled(recipe: Recipe, probability: float) -> Recipe:
    """The recipe with its loss sampled, 1 / probability times the images in a step, and as many steps.

    Only the end of training is validated, so that time is training's alone.
    """
    (epochs,) = (math.ceil(epochs / probability) for epochs in recipe.stages.epochs)
    return replace(
        recipe,
        loss=replace(recipe.loss, sampling=probability),
        data=replace(recipe.data, batch_size=round(recipe.data.batch_size / probability)),
        stages=replace(recipe.stages, epochs=[epochs]),
        trainer=replace(recipe.trainer, validate_every=epochs, log_every=1),
    )


def training_loss(folder: Path) -> np.ndarray:
    """``[steps, 3]``: step, seconds since the first step, loss; from the events of a stage's folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes seconds to import

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    points = np.array([(event.step, event.wall_time, event.value) for event in events.Scalars("train_loss")])
    points[:, 1] -= points[0, 1]
    return points


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Means of the last twentieth of the steps up to each."""
    window = max(1, len(losses) // 20)
    sums = np.concatenate([[0.0], np.cumsum(losses)])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(0, ends - window)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def run(options: argparse.Namespace) -> Result:
    recipe = only_stage(recipe_of(options), options.stride)
    curves: dict[float, np.ndarray] = {}
    rows: list[list[Cell]] = []
    with run_folder(options) as folder:
        for probability in options.probabilities:
            trial = sampled(recipe, probability)
            run = run_once(trial, folder / f"sampling_{probability:g}")
            points = curves[probability] = training_loss(best_weights(run, options.stride).parent)
            seconds = float(points[-1, 1])
            metrics = score(trial, run, options.stride, options.device)
            rows.append(
                [
                    f"{probability:.0%}",
                    trial.data.batch_size,
                    len(points),
                    float(smoothed(points[:, 2])[-1]),
                    100 * metrics.mean_iu,
                    seconds,
                    seconds / max(1, len(points) - 1),
                ]
            )
    columns = ("sampled", "images a step", "steps", "loss at the end", "mean IU, %", "seconds", "seconds a step")

    def draw(figure: Figure) -> None:
        for axes, column, name in zip(figure.subplots(1, 2, sharey=True), (0, 1), ("step", "seconds"), strict=True):
            for (probability, points), color in zip(curves.items(), COLORS * len(curves), strict=False):
                label = "whole images" if probability == 1 else f"{probability:.0%} sampling"
                axes.plot(points[:, column], smoothed(points[:, 2]), color=color, label=label)
            axes.set_xlabel(name, color=INK)
            plain_axes(axes)
        figure.axes[0].set_ylabel("training loss", color=INK)
        figure.axes[0].legend(frameon=False, labelcolor=INK)

    return Result(
        f"Whole images against sampled losses: FCN-{options.stride}s",
        [Table("Training", columns, rows)],
        draw,
        (
            described(recipe),
            "Each cell of the last layer counts with the given probability, and batches grow by its inverse. The "
            "paper found the same convergence for each step, and more time for each step of more images.",
        ),
        {
            "curves": {
                f"{probability:g}": {"step": points[:, 0].tolist(), "seconds": points[:, 1].tolist(),
                                     "loss": points[:, 2].tolist()}
                for probability, points in curves.items()
            }
        },
        figure_size=(9.0, 3.6),
    )  # fmt: skip
