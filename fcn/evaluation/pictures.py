"""Pictures: panels side by side, learning curves, confusion matrices."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from ..data import Color
from ..data.files import write_image
from ..files import replacing
from .fonts import drawable, families
from .legend import legend, stacked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#333333", "#dddddd"


def save_panels(
    path: str | Path,
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    classes: Sequence[str],
    palette: Sequence[Color],
    row_names: Sequence[str] | None = None,
) -> None:
    """A PNG of rows of pictures (uint8 ``[H, W]`` or ``[H, W, 3]``) under column titles, with a legend."""
    height, width = rows[0][0].shape[:2]
    cell = 2.3
    figure = new_figure(cell * len(titles), cell * len(rows) * height / width + 0.4)
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            axes = grid[r, c]
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
            if r == 0:
                axes.set_title(titles[c], color=INK, fontsize=11)
            if c == 0 and row_names is not None:
                axes.set_ylabel(row_names[r], color=INK, fontsize=9)
    pixels = _pixels(figure)
    write_image(path, Image.fromarray(stacked([pixels, legend(drawable(classes), palette, pixels.shape[1])])))


def save_curves(path: str | Path, histories: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Learning curves as small multiples: loss and mean IU over epochs, one column for each run (name: its rows)."""
    figure = new_figure(3.2 * len(histories) + 0.6, 4.6)
    grid = figure.subplots(2, len(histories), squeeze=False, sharey="row", sharex="col")
    for column, (name, rows) in enumerate(histories.items()):
        epochs = [row["epoch"] for row in rows]
        losses, scores = grid[0, column], grid[1, column]
        losses.plot(epochs, [row["train_loss"] for row in rows], color="#8a8a8a", label="training", marker=".")
        losses.plot(epochs, [row["val_loss"] for row in rows], color="#1f6fb4", label="validation", marker=".")
        scores.plot(epochs, [row["mean_iu"] for row in rows], color="#1f6fb4", marker=".")
        best = max(rows, key=lambda row: row["mean_iu"])
        scores.plot(best["epoch"], best["mean_iu"], "o", color="#d1495b")
        scores.annotate(
            f"{best['mean_iu']:.3f}", (best["epoch"], best["mean_iu"]), (0, -14), textcoords="offset points",
            ha="center", color="#d1495b", fontsize=9,
        )  # fmt: skip
        losses.set_title(name, color=INK, fontsize=11)
        scores.set_xlabel("epoch", color=INK)
        for axes in (losses, scores):
            plain_axes(axes)
    grid[0, 0].set_ylabel("loss", color=INK)
    grid[1, 0].set_ylabel("validation mean IU", color=INK)
    grid[0, -1].legend(frameon=False, fontsize=9, labelcolor=INK)
    save_figure(figure, path)


def save_confusion(path: str | Path, confusion: Tensor, classes: Sequence[str]) -> None:
    """A PNG of a confusion matrix ``[C, C]``: of each true class (row), what part got each label (column), in percent.

    Rows of classes without true pixels stay empty.
    """
    truth = confusion.double().sum(1, keepdim=True)
    parts = (100 * confusion.double() / truth).numpy()  # 0 / 0 is nan, which is not drawn.
    count, cell = len(classes), 0.42
    figure = new_figure(cell * count, cell * count, layout=None)  # names lie outside; ``save_figure`` makes room
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(parts >= 0.5):
        value = parts[row, column]
        color = "white" if value > 55 else INK
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=color)
    names = drawable(classes)
    style: dict[str, Any] = {"fontsize": 9, "color": INK, "family": families(names), "parse_math": False}
    axes.set_xticks(range(count), names, rotation=90, **style)
    axes.set_yticks(range(count), names, **style)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("labeled as, % of the true class", color=INK)
    axes.set_ylabel("true class", color=INK)
    save_figure(figure, path, dpi=min(150, 6000 / (cell * count)))


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure, in inches."""
    # The object API with the Agg canvas: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def draw_bars(axes: Axes, values: Mapping[str, float], unit: str) -> None:
    """Horizontal bars from the top down, each with its value."""
    bars = axes.barh(list(values), list(values.values()), color="#1f6fb4", height=0.6)
    labels = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in values.values()]
    axes.bar_label(bars, labels, padding=3, color=INK, fontsize=9)
    axes.margins(x=0.15)
    axes.set_xlabel(unit, color=INK)
    axes.yaxis.set_inverted(True)
    plain_axes(axes, grid="x")


def plain_axes(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """No frame, quiet lines across ``grid`` behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=9, color=GRID)
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def save_figure(figure: Figure, path: str | Path, dpi: float = 150) -> None:
    """A PNG, written whole or not at all, as large as all that is drawn needs."""
    # Labels longer than their axis: Matplotlib 3.9 leaves them out by itself.
    labels = [axis.label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    artists = [*figure.get_default_bbox_extra_artists(), *labels]
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.1, bbox_extra_artists=artists)


def _pixels(figure: Figure) -> np.ndarray:
    """uint8 ``[H, W, 3]``, as large as all that is drawn needs."""
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", pad_inches=0.1)
        return np.asarray(Image.open(buffer).convert("RGB"))
