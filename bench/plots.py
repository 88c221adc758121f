"""The results as pictures: speed ratios as bars, memory against image size as lines."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from bench.results import (
    Results,
    eager_baseline,
    honest_allocator,
    machine_line,
    ours,
    ratio,
    seconds,
    strongest_baseline,
    timed_rows,
)
from bench.tables import duration, megabytes, times

COLORS = {"cpu": "#1f6fb4", "cuda": "#2a8f4d", "triton": "#d9822b", "reference": "#8c8c8c"}
BASELINES = ("#c0392b", "#7f8c8d", "#b8860b", "#8e6bb0")


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the plots that the results allow and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        paths = [_speed(results, folder / f"{results['device']}_speed.png")]
        paths += [_memory(results, folder / f"{results['device']}_memory.png")]
    return [path for path in paths if path is not None]


def _save(figure: Figure, path: Path) -> Path:
    temporary = path.with_name(path.name + ".part")
    figure.savefig(temporary, dpi=150, bbox_inches="tight", format="png")
    plt.close(figure)
    os.replace(temporary, path)
    return path


def _speed(results: Results, path: Path) -> Path | None:
    """A bar for each headline case and backend: times faster than the strongest PyTorch spelling; a dot: than eager."""
    honest = honest_allocator(results)
    bars = []
    for row in timed_rows(results):
        best, eager = strongest_baseline(row, honest), eager_baseline(row, honest)
        for name, candidate in ours(row).items():
            time = seconds(candidate, honest)
            if row["headline"] and best is not None and time is not None:
                note = f"{times(best[1] / time):<6} {duration(time)} ms; {duration(best[1])} ms {best[0]}"
                bars.append((row, name, best[1] / time, ratio(eager, time), note))
    if not bars:
        return None

    figure, axes = plt.subplots(figsize=(11, 1.4 + 0.3 * len(bars) + 0.35 * len({b[0]["operator"] for b in bars})))
    y, operator, ticks, labels = 0.0, "", [], []
    largest = max(value for bar in bars for value in bar[2:4] if value)
    smallest = min(1.0, min(bar[2] for bar in bars))
    axes.set_xscale("log")
    axes.set_xlim(smallest / 1.5, largest * 1.3)
    for row, name, against_best, against_eager, note in bars:
        if row["operator"] != operator:
            operator, y = row["operator"], y + 1.2
            axes.text(0, y, operator, transform=axes.get_yaxis_transform(), ha="right", va="center", weight="bold")
            y += 1
        # Bars grow from 1, to the left where PyTorch is faster.
        axes.barh(y, against_best - 1, left=1, height=0.7, color=COLORS[name], zorder=2)
        if against_eager is not None:
            axes.plot(against_eager, y, "o", markersize=5, markerfacecolor="white", markeredgecolor="#333333", zorder=3)
        axes.text(1.01, y, note, transform=axes.get_yaxis_transform(), va="center", color=COLORS[name])
        ticks.append(y)
        labels.append(f"{row['case']}, {row['mode']}")
        y += 1
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(y, 0.4)
    axes.axvline(1, color="#333333", linewidth=0.8)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6, zorder=0)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("times faster (cold caches, medians)")
    handles: list[Patch | Line2D] = [
        Patch(color=COLORS[n], label=f"{n}, against the fastest PyTorch spelling")
        for n in dict.fromkeys(bar[1] for bar in bars)
    ]
    usual = "against the usual PyTorch spelling"
    handles.append(Line2D([], [], marker="o", linestyle="", mfc="white", mec="#333333", label=usual))
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(handles), frameon=False)
    title = f"fcn_kernels against PyTorch, {honest} allocator\n{machine_line(results)}"
    axes.set_title(title, loc="left", fontsize=10, pad=28)
    return _save(figure, path)


def _memory(results: Results, path: Path) -> Path | None:
    """A line for each spelling: peak memory of one call against the side of the image."""
    rows = sorted((row for row in results["rows"] if row["image_size"] is not None), key=lambda row: row["image_size"])
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(8, 4.8))
    baseline_colors = iter(BASELINES * 2)
    ends = []
    for name, first in rows[0]["candidates"].items():
        points = [
            (row["image_size"], row["candidates"][name]["peak_bytes"] / 1e6)
            for row in rows
            if row["candidates"][name].get("peak_bytes")
        ]
        if not points:
            continue
        color = COLORS[first["backend"]] if first["backend"] else next(baseline_colors)
        axes.plot(*zip(*points, strict=True), "o-", color=color, linewidth=2.4 if first["backend"] else 1.4, ms=4)
        side, peak = points[-1]
        text = f"fcn_kernels, {name}" if first["backend"] else name
        ends.append((peak, side, f"{text}: {megabytes(int(peak * 1e6))} MB", color))
    axes.set_xscale("log")
    axes.set_yscale("log")
    sides = [row["image_size"] for row in rows]
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_xlabel("side of the image, pixels")
    axes.set_ylabel("peak memory beyond the inputs, MB")
    figure.canvas.draw()
    # Labels at the ends of the lines, pushed apart where the lines end close together.
    height, last = axes.get_window_extent().height, float("inf")
    for peak, side, text, color in sorted(ends, reverse=True):
        wanted = axes.transData.transform((side, peak))[1]
        last = min(wanted, last - 0.05 * height)
        offset = (10, (last - wanted) * 72 / figure.dpi)
        axes.annotate(text, (side, peak), xytext=offset, textcoords="offset points", va="center", color=color)
    axes.set_title(
        f"{rows[0]['operator']}, {rows[0]['mode']}: 21 classes, stride 8, one image\n{machine_line(results)}",
        fontsize=10,
        loc="left",
    )
    return _save(figure, path)
