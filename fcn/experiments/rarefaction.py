"""Dense scores three ways: the strided network, shift-and-stitch, and rarefied filters (CVPR 2015, section 3.2)."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fcn_kernels.flops import flop_counter

from ..arguments import count
from ..evaluation.pictures import INK, plain_axes
from ..networks.backbones import BACKBONES, Net
from ..networks.graph import reach_of
from ..networks.rarefaction import rarefy, shift_and_stitch
from .clock import take_turns
from .result import Cell, Result, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", choices=tuple(BACKBONES), default="vgg16")
    parser.add_argument("--layer", default="pool3", help="the layer whose maps are made dense (default: pool3)")
    parser.add_argument("--size", type=count, default=160, help="height and width of the image (default: 160)")
    parser.add_argument("--repeats", type=count, default=3, help="timed runs of each (default: 3)")


class Chain(nn.Module):
    """A network up to one layer, without padding: then every position is the same function of what it sees."""

    def __init__(self, network: str, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self.net = Net([replace(each, padding=0) for each in BACKBONES[network].layers], (layer,))

    def forward(self, x: Tensor) -> Tensor:
        maps: dict[str, Tensor] = self.net(x)
        return maps[self.layer]


def difference(a: Tensor, b: Tensor) -> float:
    """The largest where both have values, relative to the largest value."""
    rows, columns = (min(a.shape[axis], b.shape[axis]) for axis in (2, 3))
    return float((a[:, :, :rows, :columns] - b[:, :, :rows, :columns]).abs().max() / b.abs().max())


def run(options: argparse.Namespace) -> Result:
    device = torch.device(options.device)
    torch.manual_seed(0)
    net = Chain(options.network, options.layer).to(device).eval()
    reach = reach_of(net)
    field, stride = reach.field[0], reach.stride[0]
    if options.size < field:
        raise ValueError(f"--size {options.size}: {options.layer} sees {field} pixels; a larger image is needed")
    if stride == 1:
        raise ValueError(f"--layer {options.layer} has stride 1: it is dense already")
    image = torch.randn(1, 3, options.size, options.size, device=device)
    steps = [step for step in range(stride - 1, 0, -1) if stride % step == 0]
    strided = f"strided, {stride}"
    calls: dict[str, Callable[[], Tensor]] = {strided: partial(net, image)}
    for step in steps:
        calls[f"shift-and-stitch, {step}"] = partial(shift_and_stitch, net, image, stride // step)
        calls[f"rarefied, {step}"] = partial(rarefy(net, step), image)

    dense, work = {}, {}
    with torch.inference_mode():
        for name, call in calls.items():
            with flop_counter() as counter:
                dense[name] = call()
            work[name] = counter.get_total_flops() / 2e9
        seconds = take_turns(calls, options.repeats, device, "rarefaction")
    milliseconds = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}

    rows: list[list[Cell]] = []
    for name, y in dense.items():
        step = int(name.rsplit(", ")[1])
        stitched = dense.get(f"shift-and-stitch, {step}", dense[strided])
        sampled = y[:, :, :: stride // step, :: stride // step]
        differences = (difference(y, stitched), difference(sampled, dense[strided]))
        rows.append([name, y.shape[2] * y.shape[3], work[name], milliseconds[name], *differences])
    table = Table(
        f"{options.network} up to {options.layer}, {options.size} x {options.size}",
        ("method, output stride", "positions", "billion multiply-adds", "ms", "from stitched", "from strided"),
        rows,
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for kind, color in (("shift-and-stitch", "#8a8a8a"), ("rarefied", "#1f6fb4")):
            times = [milliseconds[strided], *(milliseconds[f"{kind}, {step}"] for step in steps)]
            axes.plot([stride, *steps], times, "o-", color=color, label=kind)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.invert_xaxis()
        axes.set_xticks([stride, *steps], [str(step) for step in (stride, *steps)])
        axes.set_xlabel("output stride, pixels", color=INK)
        axes.set_ylabel("ms", color=INK)
        axes.legend(frameon=False, labelcolor=INK)
        plain_axes(axes)

    return Result(
        "Shift-and-stitch and filter rarefaction",
        [table],
        draw,
        (
            "'From' is the largest difference over the positions that both have, relative to the largest value. A "
            "rarefied filter sees nothing finer than the filter it comes from.",
        ),
        {"seconds": seconds},
    )
