"""Metrics as tables for the terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ..data.tasks import distinct
from ..text import shown
from .metrics import Metrics

COLUMNS = {
    "pixel_accuracy": "pixel acc.",
    "mean_accuracy": "mean acc.",
    "mean_iu": "mean IU",
    "frequency_weighted_iu": "f.w. IU",
}


def metrics_table(results: Mapping[str, Metrics], title: str) -> Table:
    """The four metrics of CVPR 2015, section 5, in percent; one row for each network."""
    table = Table(title=Text(title))
    table.add_column("network", overflow="fold")
    for name in COLUMNS.values():
        table.add_column(name, justify="right")
    for name, metrics in results.items():
        table.add_row(Text(shown(name)), *(_percent(getattr(metrics, key)) for key in COLUMNS))
    return table


def class_table(results: Mapping[str, Metrics], classes: Sequence[str]) -> Table:
    """IU of each class in percent; one column for each network; - for a class without true pixels."""
    table = Table(title="IU per class")
    table.add_column("class", overflow="fold")
    for name in results:
        table.add_column(Text(shown(name)), justify="right")
    for index, name in enumerate(classes):
        table.add_row(Text(shown(name)), *(_percent(metrics.class_iu[index]) for metrics in results.values()))
    return table


def metrics_as_dict(metrics: Metrics, classes: Sequence[str]) -> dict[str, Any]:
    """Plain values for JSON; undefined ones are None."""
    names = distinct(classes)
    values: dict[str, Any] = {key: _finite(getattr(metrics, key)) for key in COLUMNS}
    values["class_iu"] = {name: _finite(iu) for name, iu in zip(names, metrics.class_iu, strict=True)}
    values["class_accuracy"] = {name: _finite(acc) for name, acc in zip(names, metrics.class_accuracy, strict=True)}
    values["confusion"] = metrics.confusion.tolist()
    values["trimap_iu"] = {str(width): _finite(iu) for width, iu in metrics.trimap_iu.items()}
    return values


def trimap_table(results: Mapping[str, Metrics]) -> Table:
    """Mean IU in percent of the pixels within some pixels of a boundary; one column for each network."""
    table = Table(title="mean IU near boundaries")
    table.add_column("pixels away", justify="right")
    for name in results:
        table.add_column(Text(shown(name)), justify="right")
    for width in next(iter(results.values())).trimap_iu:
        table.add_row(f"up to {width}", *(_percent(metrics.trimap_iu[width]) for metrics in results.values()))
    return table


def class_csv(metrics: Metrics, classes: Sequence[str]) -> str:
    """One line for each class: its name, pixels, accuracy and IU in [0, 1]; empty where undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class", "pixels", "accuracy", "iu"))
    pixels = metrics.confusion.sum(1).tolist()
    for row in zip(classes, pixels, map(_finite, metrics.class_accuracy), map(_finite, metrics.class_iu), strict=True):
        writer.writerow(row)
    return text.getvalue()


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
