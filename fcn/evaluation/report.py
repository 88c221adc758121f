"""A run on one page: scores, curves, classes, confusion and images, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from ..data import Color
from ..files import write_text
from ..text import shown
from .metrics import Metrics
from .overlays import blend, colorize

PAGE = Path(__file__).with_name("report.html")
WIDEST = 640
"""Pixels of a picture on the page."""


@dataclass(frozen=True)
class Example:
    """An image uint8 ``[H, W, 3]`` with true and found labels ``[H, W]``, and the mean IU of that image alone."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    labels: np.ndarray
    mean_iu: float


@dataclass(frozen=True)
class Report:
    """What is on the page. ``figures``: PNG files by their captions. ``examples`` by what they are examples of.
    ``facts``: lines of two columns. ``commands``: what to type next, by what it does."""

    title: str
    metrics: Metrics
    classes: Sequence[str]
    palette: Sequence[Color]
    warnings: Sequence[str]
    facts: Mapping[str, str]
    figures: Mapping[str, Path]
    examples: Mapping[str, Example]
    commands: Mapping[str, str]


def save_report(path: Path, report: Report) -> None:
    """Writes the page, whole or not at all."""
    parts = [
        f"<h1>{_text(report.title)}</h1>",
        *(f'<p class="warning">{_text(line)}</p>' for line in report.warnings),
        _scores(report.metrics),
        _table(report.facts),
        "<h2>Classes</h2>",
        _classes(report),
        "<h2>Validation images: the best, the median and the worst</h2>",
        *(_example(what, example, report) for what, example in report.examples.items()),
        *(
            f"<h2>{_text(caption)}</h2><img class='plot' src='{_embedded(figure.read_bytes())}' alt='{_text(caption)}'>"
            for caption, figure in report.figures.items()
        ),
        "<h2>Go on</h2>",
        *(f"<p>{_text(what)}</p><pre>{_text(command)}</pre>" for what, command in report.commands.items()),
    ]
    page = Template(PAGE.read_text(encoding="utf-8"))
    write_text(path, page.substitute(title=_text(report.title), body="\n".join(parts)))


def _scores(metrics: Metrics) -> str:
    values = {
        "mean IU": metrics.mean_iu,
        "pixel accuracy": metrics.pixel_accuracy,
        "mean accuracy": metrics.mean_accuracy,
        "frequency weighted IU": metrics.frequency_weighted_iu,
    }
    cells = "".join(f"<div><b>{_percent(value)}</b><span>{name}</span></div>" for name, value in values.items())
    return f'<div class="scores">{cells}</div>'


def _table(rows: Mapping[str, str]) -> str:
    lines = "".join(f"<tr><th>{_text(key)}</th><td>{_text(value)}</td></tr>" for key, value in rows.items())
    return f"<table>{lines}</table>"


def _classes(report: Report) -> str:
    metrics = report.metrics
    pixels = metrics.confusion.sum(1)
    total = max(int(pixels.sum()), 1)
    lines = []
    for index, name in enumerate(report.classes):
        iu = metrics.class_iu[index]
        bar = 0 if math.isnan(iu) else 100 * iu
        lines.append(
            f"<tr><td>{_swatch(report.palette[index])}{_text(name)}</td>"
            f"<td>{_percent(float(pixels[index]) / total)}</td>"
            f'<td>{_percent(metrics.class_accuracy[index])}</td><td class="bar">'
            f'<i style="width:{bar:.1f}%"></i><b>{_percent(iu)}</b></td></tr>'
        )
    return (
        "<table><tr><th>class</th><th>part of pixels</th><th>accuracy</th><th>IU</th></tr>"
        + "".join(lines)
        + "</table>"
    )


def _example(what: str, example: Example, report: Report) -> str:
    error = np.where((example.truth != 255) & (example.truth != example.labels), 0, 255).astype(np.uint8)
    pictures = {
        "image": example.image,
        "truth": blend(example.image, example.truth, report.palette),
        "found": blend(example.image, example.labels, report.palette),
        "labels": colorize(example.labels, report.palette),
        "errors (black)": error,
    }
    cells = "".join(
        f"<figure><img src='{_embedded(_picture(pixels))}' alt='{name} of {_text(example.name)}'>"
        f"<figcaption>{name}</figcaption></figure>"
        for name, pixels in pictures.items()
    )
    caption = f"{what}: {example.name}, mean IU {_percent(example.mean_iu)}"
    return f'<h3>{_text(caption)}</h3><div class="pictures">{cells}</div>'


def _picture(pixels: np.ndarray) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((WIDEST, WIDEST), Image.Resampling.BILINEAR)
    with io.BytesIO() as buffer:
        image.save(buffer, format="PNG")
        return buffer.getvalue()


def _embedded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _swatch(color: Color) -> str:
    return f'<i class="swatch" style="background:rgb{tuple(color)}"></i>'


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _text(value: str) -> str:
    return html.escape(shown(value))
