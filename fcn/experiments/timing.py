"""The paper's Table 1: size, receptive field and time of each network; and what makes a network fast here."""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fcn_kernels import bilinear_kernel, use_backend

from ..arguments import count
from ..evaluation.pictures import INK, draw_bars
from ..inference.machine import bfloat16_instructions
from ..inference.predictor import inference_trunk
from ..networks.backbones import BACKBONES
from ..networks.graph import reaches, trace, window_of
from ..networks.models import FCN, ModelConfig, build_model
from .clock import take_turns
from .result import Cell, Result, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Call = Callable[[], Tensor]
PAPER = {"alexnet": 50, "vgg16": 210, "googlenet": 59}
"""Milliseconds of CVPR 2015, table 1: 500 x 500 on a Tesla K40c."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = tuple(BACKBONES)
    parser.add_argument("--networks", nargs="*", choices=names, default=list(PAPER), help="rows of Table 1, as FCN-32s")
    parser.add_argument("--network", choices=names, default="vgg16", help="compared in every way (default: vgg16)")
    parser.add_argument("--stride", type=int, choices=(32, 16, 8, 4), default=8, help="of that network (default: 8)")
    parser.add_argument("--size", type=count, default=500, help="height and width of the image (default: 500)")
    parser.add_argument("--classes", type=count, default=21)
    parser.add_argument("--repeats", type=count, default=5, help="timed runs of each (default: 5)")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")


def run(options: argparse.Namespace) -> Result:
    device = torch.device(options.device)
    torch.manual_seed(0)
    image = random_image((options.size, options.size), device)
    networks, seconds = _table1(options, image)
    ways, more = _ways(options, image)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bars = {
            f"{row[0]}, {pad}": value
            for row in ways.rows
            for pad, value in zip(ways.columns[1:-1], row[1:-1], strict=True)
            if isinstance(value, float)
        }
        draw_bars(axes, bars, "ms an image")
        axes.set_title(ways.title, color=INK, fontsize=11)

    return Result(
        "Time of inference",
        [networks, ways],
        draw,
        (
            "From preprocessed pixels to the label map, weights random. The paper's times are those of a Tesla K40c; "
            "its receptive field of 907 for GoogLeNet counts an average pooling that its FCN leaves out. 'reused': "
            "what follows from the padding alone is computed once. Agreement is of labels with float32, official "
            "padding; scores of random weights lie closer together than trained ones.",
        ),
        {"seconds": {**seconds, **more}},
        figure_size=(8.0, 5.5),
    )


def random_image(size: tuple[int, int], device: torch.device) -> Tensor:
    """``[1, 3, *size]``, smooth as photographs are."""
    coarse = torch.randn(1, 3, 12, 12, device=device)
    return F.interpolate(coarse, size, mode="bicubic", align_corners=False)


@torch.no_grad()
def random_model(name: str, stride: int, classes: int, pad: str, image: Tensor) -> FCN:
    """With random scoring layers too, so balanced that the labels of ``image`` differ."""
    model = build_model(ModelConfig(name, stride, classes, pad)).to(image.device).eval()
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)
    bias = model.head.score(model.head.streams[0]).bias
    assert bias is not None
    bias -= model(image).mean((0, 2, 3))
    return model


def labeling(model: FCN, image: Tensor, dtype: torch.dtype = torch.float32, **options: bool) -> Call:
    trunk = inference_trunk(model, dtype, **options)

    @torch.inference_mode()
    def call() -> Tensor:
        return model.scores(image, trunk).labels()

    return call


def depth(net: nn.Module) -> int:
    """Convolutions on the longest way through a network."""
    traced = trace(net)
    depths: dict[fx.Node, int] = {}
    for node in traced.graph.nodes:
        window = window_of(traced, node)
        before = max((depths[each] for each in node.all_input_nodes if each in depths), default=0)
        depths[node] = before + (window is not None and window.kind == "conv")
    return max(depths.values())


def as_usually_written(model: FCN, image: Tensor) -> Call:
    """The same network from PyTorch's own layers, as ports of it are: NCHW, dense transposed convolutions, argmax."""
    trunk = trace(copy.deepcopy(model.backbone).to(memory_format=torch.contiguous_format))  # type: ignore[call-overload]
    for node in [node for node in trunk.graph.nodes if "memory_format" in node.kwargs]:
        node.replace_all_uses_with(node.all_input_nodes[0])
        trunk.graph.erase_node(node)
    trunk.recompile()
    head, size = model.head, (image.shape[2], image.shape[3])
    eye = torch.eye(model.config.classes, device=image.device)[:, :, None, None]
    steps = [head.upsample(name).geometry for name in (*head.fusions, head.last)]
    filters = [eye * bilinear_kernel(step.layer.kernel_size).to(image.device) for step in steps]

    @torch.inference_mode()
    @use_backend("reference")
    def call() -> Tensor:
        maps = trunk(image)
        scores = [head.score(stream)(maps[stream.tap]) * stream.scale for stream in head.streams]
        x = scores[0]
        for step, weight, skip in zip(steps, filters, [*scores[1:], None], strict=True):
            fine = size if skip is None else skip.shape[2:]
            height, width = (step.overlap(x.shape[axis + 2], fine[axis]) for axis in (0, 1))
            x = F.conv_transpose2d(x, weight, stride=step.layer.stride)
            x = x[:, :, step.crop : step.crop + height, step.crop : step.crop + width]
            if skip is not None:
                x = x + skip[:, :, step.skip_crop : step.skip_crop + height, step.skip_crop : step.skip_crop + width]
        labels: Tensor = x.max(1).indices
        return labels

    return call


def _dtypes(device: torch.device) -> list[torch.dtype]:
    fast = device.type == "cuda" or bfloat16_instructions() is not None
    return [torch.float32, torch.bfloat16] if fast else [torch.float32]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _table1(options: argparse.Namespace, image: Tensor) -> tuple[Table, dict[str, object]]:
    dtypes, rows, seconds = _dtypes(image.device), [], {}
    for name in options.networks:
        model = random_model(name, 32, options.classes, "official", image)
        traced = trace(model.backbone)
        reach = max(reaches(traced).values(), key=lambda reach: reach.field)
        calls = {_name(dtype): labeling(model, image, dtype) for dtype in dtypes}
        seconds[name] = take_turns(calls, options.repeats, image.device, f"FCN-32s {name}")
        times = [1e3 * statistics.median(values) for values in seconds[name].values()]
        parameters = sum(p.numel() for p in model.parameters())
        row: list[Cell] = [f"FCN-{name}", PAPER.get(name), *times, depth(model.backbone) + 1, parameters]
        rows.append([*row, reach.field[0], reach.stride[0]])
    headings = ["paper, ms", *(f"{_name(dtype)}, ms" for dtype in dtypes)]
    columns = ("", *headings, "conv. layers", "parameters", "rf size", "max stride")
    return Table(f"Table 1: FCN-32s, {options.size} x {options.size}, official padding", columns, rows), {**seconds}


def _ways(options: argparse.Namespace, image: Tensor) -> tuple[Table, dict[str, object]]:
    *_, fastest = _dtypes(image.device)
    columns: dict[str, dict[str, list[float]]] = {}
    agreement: dict[str, float] = {}
    for title, pad, reuse in (
        ("official", "official", False),
        ("official, reused", "official", True),
        ("same", "same", True),
    ):
        model = random_model(options.network, options.stride, options.classes, pad, image)
        calls: dict[str, Call] = {}
        if title != "official, reused":
            calls["PyTorch as usually written, float32"] = as_usually_written(model, image)
        for dtype in _dtypes(image.device):
            calls[_name(dtype)] = labeling(model, image, dtype, reuse_padding=reuse)
        if not options.no_compile:
            calls[f"{_name(fastest)}, compiled"] = labeling(model, image, fastest, reuse_padding=reuse, compile=True)
        columns[title] = take_turns(calls, options.repeats, image.device, f"padding: {title}")
        if pad == "official":
            exact = calls["float32"]()
            agreement |= {name: 100 * float((call() == exact).double().mean()) for name, call in calls.items()}
    rows: list[list[Cell]] = []
    for name in columns["official"]:
        times = [columns[title].get(name) for title in columns]
        medians = [None if values is None else 1e3 * statistics.median(values) for values in times]
        rows.append([name, *medians, agreement[name]])
    title = f"FCN-{options.stride}s {options.network}, {options.size} x {options.size}, ms by padding"
    return Table(title, ("", *columns, "agreement, %"), rows), {f"padding: {k}": v for k, v in columns.items()}
