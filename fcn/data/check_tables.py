"""What ``fcn data check`` found, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Column, Table
from rich.text import Text

from ..text import shown
from .check import Report
from .findings import LabelReport


def tables(report: Report, title: str, most: int = 30) -> list[Table]:
    """Splits, classes, and at most so many problems."""
    overview = Table("split", title=Text(title))
    for column in ("images", "void", "stored as", "problems"):
        overview.add_column(column, justify="right")
    for name, split in report.splits.items():
        # Images and problems are those of the split: once, beside its first task.
        of_split = [str(len(split.names)), str(sum(problem.split == name for problem in report.problems))]
        for task, labels in split.labels.items():
            stored = ", ".join(str(value) for value in sorted(labels.void)) or "-"
            void = f"{100 * _void_share(labels):.2f} %"
            overview.add_row(Text(f"{name} {task}".strip()), of_split[0], void, stored, of_split[1])
            of_split = ["", ""]

    tasks = next((list(split.labels) for split in report.splits.values()), [])
    histograms = [
        _histogram(task, {name: split.labels[task] for name, split in report.splits.items()}) for task in tasks
    ]

    found_table = Table("split", "problem", Column("where", overflow="fold"), title=f"{len(report.problems)} problems")
    for problem in report.problems[:most]:
        found_table.add_row(Text(problem.split), problem.trouble, Text(shown(problem.what)))
    if len(report.problems) > most:
        found_table.add_row("", "", f"and {len(report.problems) - most} more (--out writes all of them)")
    return [table for table in (overview, *histograms, found_table) if table.row_count]


def _histogram(task: str, splits: Mapping[str, LabelReport]) -> Table:
    table = Table(title="Share of labeled pixels, and images with the class")
    table.add_column(Text(f"{task} class".strip()), overflow="fold")
    for name in splits:
        table.add_column(Text(name), justify="right")
        table.add_column("images", justify="right")
    for index, label in enumerate(next(iter(splits.values())).classes):
        cells: list[str] = []
        for labels in splits.values():
            share = 100 * labels.pixels[index] / max(1, labels.pixels.sum())
            cells += [f"{share:.2f} %", str(labels.images[index])]
        table.add_row(Text(shown(label)), *cells)
    return table


def _void_share(labels: LabelReport) -> float:
    void = labels.void.total()
    return void / max(1, void + int(labels.pixels.sum()))
