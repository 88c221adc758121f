"""The paper's Table 2: what skips add, FCN-32s-fixed, -32s, -16s and -8s (CVPR 2015, section 4.2)."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from ..evaluation.metrics import Metrics
from ..evaluation.pictures import INK, plain_axes
from .result import Cell, Result, Table
from .trials import (
    METRIC_COLUMNS,
    add_training_arguments,
    described,
    draw_groups,
    only_stage,
    percentages,
    recipe_of,
    run_folder,
    run_once,
    score,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = {
    "FCN-32s-fixed": (83.0, 59.7, 45.4, 72.0),
    "FCN-32s": (89.1, 73.3, 59.4, 81.4),
    "FCN-16s": (90.0, 75.7, 62.4, 83.0),
    "FCN-8s": (90.3, 75.9, 62.7, 83.2),
}
"""VGG16 on 736 images of PASCAL VOC 2011's validation split, in percent."""

add_arguments = add_training_arguments


def run(options: argparse.Namespace) -> Result:
    recipe = recipe_of(options)
    if recipe.stages.stride != [32, 16, 8]:
        raise ValueError(f"the recipe must train strides [32, 16, 8], it trains {recipe.stages.stride}")
    fixed = only_stage(replace(recipe, model=replace(recipe.model, tune="head")), 32)
    results: dict[str, Metrics] = {}
    with run_folder(options) as folder:
        run = run_once(fixed, folder / "fixed")
        results["FCN-32s-fixed"] = score(fixed, run, 32, options.device)
        run = run_once(recipe, folder / "staged")
        for stride in recipe.stages.stride:
            results[f"FCN-{stride}s"] = score(recipe, run, stride, options.device)
    rows: list[list[Cell]] = [[name, *percentages(metrics)] for name, metrics in results.items()]
    paper: list[list[Cell]] = [[name, *values] for name, values in PAPER.items()]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bars = {name: percentages(metrics) for name, metrics in results.items()}
        draw_groups(axes, bars, [name.removesuffix(", %") for name in METRIC_COLUMNS])
        axes.set_ylabel("%", color=INK)
        axes.legend(frameon=False, labelcolor=INK, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.12))
        plain_axes(axes)

    return Result(
        "Skips: from coarse to fine",
        [
            Table("Here", ("network", *METRIC_COLUMNS), rows),
            Table("CVPR 2015, table 2: VGG16 on PASCAL VOC", ("network", *METRIC_COLUMNS), paper),
        ],
        draw,
        (
            described(recipe),
            "FCN-32s-fixed learns its scoring layer alone; its trunk keeps the weights that it starts with (batch "
            "normalization, where there is any, still follows the images).",
        ),
    )
