"""One convolutional pass over an image against classifying it patch by patch (CVPR 2015, section 3.1)."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import count
from ..evaluation.pictures import INK, draw_bars
from ..networks.backbones import BACKBONES, convolutionalize
from ..networks.geometry import total_stride
from .clock import take_turns
from .result import Cell, Result, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", choices=tuple(BACKBONES), default="alexnet")
    parser.add_argument("--size", type=count, default=500, help="height and width of the image (default: 500)")
    parser.add_argument("--batch", type=count, default=20, help="patches at a time (default: 20)")
    parser.add_argument("--repeats", type=count, default=3, help="timed runs of each (default: 3)")
    parser.add_argument("--no-backward", action="store_true", help="leave out the gradients of the weights")


def patches(image: Tensor, size: int, stride: int, grid: tuple[int, int]) -> Tensor:
    """What the outputs of ``grid`` see, ``[rows * columns, C, size, size]``; past the image are zeros."""
    rows, columns = (size + (n - 1) * stride for n in grid)
    padded = F.pad(image, (0, max(0, columns - image.shape[3]), 0, max(0, rows - image.shape[2])))
    windows = padded.unfold(2, size, stride).unfold(3, size, stride)[:, :, : grid[0], : grid[1]]
    return windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, image.shape[1], size, size)


def run(options: argparse.Namespace) -> Result:
    device = torch.device(options.device)
    torch.manual_seed(0)
    architecture = BACKBONES[options.network]
    classifier = architecture.classifier().to(device).eval()
    (scores,) = classifier.taps
    fcn = convolutionalize(classifier)
    if options.size < architecture.image_size:
        raise ValueError(
            f"--size {options.size}: {options.network} classifies {architecture.image_size} pixels or more"
        )
    image = torch.randn(1, 3, options.size, options.size, device=device)
    with torch.inference_mode():
        rows, columns = fcn(image)[scores].shape[2:]
    cut = patches(image, architecture.image_size, total_stride(fcn.path(scores)), (rows, columns))

    def work(net: nn.Module, batches: tuple[Tensor, ...], backward: bool) -> Callable[[], None]:
        def call() -> None:
            with torch.set_grad_enabled(backward):
                for batch in batches:
                    given = net(batch)[scores]
                    if backward:
                        given.sum().backward()
            net.zero_grad()

        return call

    count = rows * columns
    ways = {
        "convolutional": (fcn, (image,)),
        f"{count} patches, {options.batch} at a time": (classifier, cut.split(options.batch)),
        f"{count} patches, one by one": (classifier, cut.split(1)),
    }
    modes = ("forward",) if options.no_backward else ("forward", "forward + gradient")
    seconds = {
        mode: take_turns(
            {name: work(*way, mode != "forward") for name, way in ways.items()}, options.repeats, device, mode
        )
        for mode in modes
    }
    medians = {mode: {name: statistics.median(times) for name, times in seconds[mode].items()} for mode in modes}

    tables = []
    for mode in modes:
        table_rows: list[list[Cell]] = [
            [name, 1e3 * time, 1e3 * time / count, time / medians[mode]["convolutional"]]
            for name, time in medians[mode].items()
        ]
        tables.append(Table(mode, ("", "ms", "ms a score", "times the convolutional"), table_rows))

    def draw(figure: Figure) -> None:
        for axes, mode in zip(figure.subplots(1, len(modes), squeeze=False, sharey=True)[0], modes, strict=True):
            draw_bars(axes, {name: 1e3 * medians[mode][name] / count for name in ways}, "ms a score")
            axes.set_title(mode, color=INK, fontsize=11)

    return Result(
        f"Convolutional against patch by patch: {options.network}, {options.size} x {options.size}",
        tables,
        draw,
        (
            f"{rows} x {columns} scores, each of {architecture.image_size} x {architecture.image_size} pixels. The "
            "paper, AlexNet on a GPU of 2014, forward: more than 5 times, and about 25 times without batches.",
        ),
        {"seconds": seconds},
        figure_size=(10.0, 3.0),
    )
