"""Metrics as tables for the terminal and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from .metrics import Metrics

COLUMNS = {
    "pixel_accuracy": "pixel acc.",
    "mean_accuracy": "mean acc.",
    "mean_iu": "mean IU",
    "frequency_weighted_iu": "f.w. IU",
}


def metrics_table(results: Mapping[str, Metrics], title: str) -> Table:
    """The four metrics of CVPR 2015, section 5, in percent; one row for each network."""
    table = Table(title=title)
    table.add_column("network")
    for name in COLUMNS.values():
        table.add_column(name, justify="right")
    for name, metrics in results.items():
        table.add_row(name, *(_percent(getattr(metrics, key)) for key in COLUMNS))
    return table


def class_table(results: Mapping[str, Metrics], classes: Sequence[str]) -> Table:
    """IU of each class in percent; one column for each network; - for a class without true pixels."""
    table = Table(title="IU per class")
    table.add_column("class")
    for name in results:
        table.add_column(name, justify="right")
    for index, name in enumerate(classes):
        table.add_row(name, *(_percent(metrics.class_iu[index]) for metrics in results.values()))
    return table


def metrics_as_dict(metrics: Metrics, classes: Sequence[str]) -> dict[str, Any]:
    """Plain values for JSON; undefined ones are None."""
    values: dict[str, Any] = {key: _finite(getattr(metrics, key)) for key in COLUMNS}
    values["class_iu"] = {name: _finite(iu) for name, iu in zip(classes, metrics.class_iu, strict=True)}
    values["class_accuracy"] = {name: _finite(acc) for name, acc in zip(classes, metrics.class_accuracy, strict=True)}
    values["confusion"] = metrics.confusion.tolist()
    return values


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
