"""What an experiment found: tables, notes and a figure; shown, and written as Markdown, JSON and a picture."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table as RichTable

from ..evaluation.pictures import new_figure, save_figure
from ..files import write_text
from ..inference.machine import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows of names and numbers; the first column names the row. None is shown as a dash."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def text(self) -> list[list[str]]:
        """Cells as they are shown: whole numbers with separators, and all floats of a column with as many decimals as
        three digits of its smallest take."""
        decimals = [_decimals(column) for column in zip(*self.rows, strict=True)]
        return [[_text(cell, places) for cell, places in zip(row, decimals, strict=True)] for row in self.rows]


@dataclass(frozen=True)
class Result:
    """What an experiment found."""

    title: str
    tables: Sequence[Table]
    draw: Callable[[Figure], None]
    """Draws the figure, ``figure_size`` inches large."""
    notes: Sequence[str] = ()
    """Sentences to be read with the tables."""
    measurements: Mapping[str, Any] = field(default_factory=dict)
    """Single measurements behind the tables, for the JSON file."""
    figure_size: tuple[float, float] = (7.0, 4.0)


def show(result: Result) -> None:
    """Print the tables and notes."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in result.tables:
        shown = RichTable(title=table.title)
        for index, heading in enumerate(table.columns):
            shown.add_column(heading, justify="right" if index else "left")
        for row in table.text():
            shown.add_row(*row)
        console.print(shown)
    for note in result.notes:
        console.print(note, highlight=False, markup=False)


def write(result: Result, name: str, options: Mapping[str, Any], device: torch.device, out: Path) -> list[Path]:
    """``<name>.md``, ``<name>.json`` and ``<name>.png`` in the folder ``out``, each whole or not at all."""
    files = [out / f"{name}.{suffix}" for suffix in ("md", "json", "png")]
    machine = describe(device)
    record = {
        "experiment": name,
        "title": result.title,
        "options": dict(options),
        "machine": machine,
        "tables": [asdict(table) for table in result.tables],
        "notes": list(result.notes),
        "measurements": dict(result.measurements),
    }
    write_text(files[0], _markdown(result, name, options, machine))
    write_text(files[1], json.dumps(record, indent=1) + "\n")
    figure = new_figure(*result.figure_size)
    result.draw(figure)
    save_figure(figure, files[2])
    return files


def _markdown(result: Result, name: str, options: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    lines = [f"# {result.title}", ""]
    for table in result.tables:
        lines += [f"## {table.title}", ""]
        lines.append(f"| {' | '.join(table.columns)} |")
        lines.append(f"| {' | '.join('---:' if index else '---' for index in range(len(table.columns)))} |")
        lines += [f"| {' | '.join(row)} |" for row in table.text()]
        lines.append("")
    for note in result.notes:
        lines += [note, ""]
    given = " ".join(_option(f"--{key.replace('_', '-')}", value) for key, value in options.items() if value)
    lines += [
        f"![{result.title}]({name}.png)",
        "",
        f"`fcn experiment {name} {given}`",
        "",
        ", ".join(f"{key}: {value}" for key, value in machine.items()),
        "",
    ]
    return "\n".join(lines)


def _option(flag: str, value: Any) -> str:
    if value is True:
        return flag
    return " ".join(map(str, (flag, *value) if isinstance(value, list) else (flag, value)))


def _decimals(column: Sequence[Cell]) -> int:
    sizes = [abs(cell) for cell in column if isinstance(cell, float) and cell and math.isfinite(cell)]
    return max(0, 2 - math.floor(math.log10(min(sizes)))) if sizes else 0


def _text(cell: Cell, decimals: int) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:,.{decimals}f}" if decimals < 7 else f"{cell:.3g}"  # small differences: 1.2e-07
    return f"{cell:,}" if isinstance(cell, int) else cell
