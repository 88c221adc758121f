"""Upsampling filters that stay bilinear against learned ones (CVPR 2015, sections 3.3 and 4.3)."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from ..evaluation.metrics import Metrics
from ..evaluation.pictures import draw_bars
from ..networks.heads import Filter, Upsample
from ..networks.models import FCN
from ..weights import load_weights
from .result import Cell, Result, Table
from .trials import (
    METRIC_COLUMNS,
    add_training_arguments,
    best_weights,
    described,
    percentages,
    recipe_of,
    run_folder,
    run_once,
    score,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_arguments(parser)
    parser.add_argument(
        "--filter",
        choices=("diagonal", "dense"),
        default="diagonal",
        help="what is learned: a filter for each class, or one from every class to every class (default: diagonal)",
    )


def filters(model: FCN) -> int:
    """Parameters of the upsampling layers."""
    return sum(
        parameter.numel()
        for module in model.head.modules()
        if isinstance(module, Upsample)
        for parameter in module.parameters()
    )


def run(options: argparse.Namespace) -> Result:
    recipe = recipe_of(options)
    stride = recipe.stages.stride[-1]
    learned: Filter = options.filter
    ways: dict[str, tuple[Filter, Filter]] = {
        "fixed": ("fixed", "fixed"),
        "learned between streams": (learned, "fixed"),
        "learned throughout": (learned, learned),
    }
    results: dict[str, Metrics] = {}
    parameters: dict[str, int] = {}
    with run_folder(options) as folder:
        for name, (between, last) in ways.items():
            model = replace(recipe.model, upsampling=between, last_upsampling=last)
            trial = replace(recipe, model=model)
            run = run_once(trial, folder / name.replace(" ", "_"))
            results[name] = score(trial, run, stride, options.device)
            parameters[name] = filters(load_weights(best_weights(run, stride)).model)
    rows: list[list[Cell]] = [[name, parameters[name], *percentages(results[name])] for name in ways]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_bars(axes, {name: 100 * metrics.mean_iu for name, metrics in results.items()}, "mean IU, %")

    return Result(
        f"Fixed and learned upsampling: FCN-{stride}s",
        [Table(f"FCN-{stride}s, learned filters: {learned}", ("filters", "their parameters", *METRIC_COLUMNS), rows)],
        draw,
        (
            described(recipe),
            "CVPR 2015 learned the filters between streams and fixed the last; later the authors fixed all of them and "
            "found no significant difference.",
        ),
        figure_size=(7.0, 2.6),
    )
