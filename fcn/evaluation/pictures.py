"""Pictures: overlays with a legend, panels side by side, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from ..data import VOID, Color
from ..files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#333333", "#dddddd"


def colorize(labels: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Labels ``[H, W]`` as uint8 ``[H, W, 3]``; void is white."""
    table = np.full((VOID + 1, 3), 255, dtype=np.uint8)
    table[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    colors: np.ndarray = table[labels]
    return colors


def blend(image: np.ndarray, labels: np.ndarray, palette: Sequence[Color], opacity: float = 0.55) -> np.ndarray:
    """Label colors over a uint8 image ``[H, W]`` or ``[H, W, 3 | 4]``; void stays clear. uint8 ``[H, W, 3]``."""
    rgb = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image[:, :, :3]
    mixed = (1 - opacity) * rgb + opacity * colorize(labels, palette)
    return np.where((labels == VOID)[:, :, None], rgb, np.rint(mixed).astype(np.uint8))


def save_overlay(
    path: str | Path, image: np.ndarray, labels: np.ndarray, classes: Sequence[str], palette: Sequence[Color]
) -> None:
    """A PNG of the overlay at about the image's own size, with a legend of the classes that occur."""
    height, width = labels.shape
    present = [index for index in range(len(classes)) if (labels == index).any()]
    scale = 100 * max(1.0, 480 / max(width, 1))  # small images are enlarged to a readable width
    figure = new_figure(width * scale / 1e4, height * scale / 1e4 + 0.4)
    axes = figure.subplots()
    axes.imshow(blend(image, labels, palette), interpolation="nearest")
    axes.axis("off")
    _legend(figure, [classes[index] for index in present], [palette[index] for index in present])
    save_figure(figure, path)


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
    figure = new_figure(cell * len(titles), cell * len(rows) * height / width + 0.7)
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
    _legend(figure, classes, palette)
    save_figure(figure, path)


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
    count = len(classes)
    figure = new_figure(1.8 + 0.42 * count, 1.6 + 0.42 * count)
    axes = figure.subplots()
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.argwhere(parts >= 0.5):
        value = parts[row, column]
        color = "white" if value > 55 else INK
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(count), classes, rotation=90, fontsize=9, color=INK)
    axes.set_yticks(range(count), classes, fontsize=9, color=INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("labeled as, % of the true class", color=INK)
    axes.set_ylabel("true class", color=INK)
    save_figure(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    # The object API with the Agg canvas: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
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


def _legend(figure: Figure, classes: Sequence[str], palette: Sequence[Color]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(
            facecolor=(color[0] / 255, color[1] / 255, color[2] / 255), edgecolor="#888888", linewidth=0.5, label=name
        )
        for name, color in zip(classes, palette, strict=True)
    ]
    if handles:
        columns = max(1, min(len(handles), int(figure.get_figwidth() / 1.2)))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, labelcolor=INK
        )


def save_figure(figure: Figure, path: str | Path) -> None:
    """A PNG, written whole or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150)
