"""A network as a table: layers, geometry, parameters."""

from __future__ import annotations

from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table
from torch import nn

from fcn_kernels import CoordMap

from .geometry import Layer, receptive_field
from .models import FCN


@dataclass(frozen=True)
class LayerSummary:
    """A row of ``describe``; ``receptive_field``, ``total_stride`` and ``first`` are in image pixels."""

    layer: str
    kind: str
    kernel_size: int
    stride: int
    padding: int
    groups: int
    crop: int
    """Samples cut off the upsampled map at the top and at the left."""
    channels: int
    parameters: int
    receptive_field: int
    total_stride: int
    first: float
    """The image coordinate that sample 0, after the crop, is centered on."""


def describe(model: FCN) -> list[LayerSummary]:
    """One row per layer in the order of computation; the sum of ``parameters`` is that of the model.

    Upsampling layers have ``kind="conv_transpose"``; fixed ones have no parameters.
    """

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    def row(name: str, path: tuple[Layer, ...], position: CoordMap, parameters: int, crop: int = 0) -> LayerSummary:
        layer = path[-1]
        return LayerSummary(
            name,
            layer.kind,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.groups,
            crop,
            layer.channels,
            parameters,
            receptive_field(path),
            int(position.scale),
            float(position.shift),
        )

    rows = []
    for modality, trunk in model.trunks.items():
        for layer in trunk.layers:
            name = ".".join(filter(None, (modality, layer.name)))
            rows.append(row(name, trunk.path(layer.name), trunk.coord_map(layer.name), trunk.parameters_of(layer.name)))

    head, classes = model.head, model.config.classes
    deepest, *skips = head.streams
    path = (*model.backbone.path(deepest.tap), Layer(deepest.score, "conv", classes))
    rows.append(row(deepest.score, path, deepest.position, count(head.score(deepest))))
    for name, skip in zip((*head.fusions, head.last), (*skips, None), strict=True):
        upsample = head.upsample(name)
        step = upsample.geometry
        path = (*path, step.layer)
        rows.append(row(name, path, step.coord_map, count(upsample), step.crop))
        if skip is not None:
            scored = (*model.backbone.path(skip.tap), Layer(skip.score, "conv", classes))
            rows.append(row(skip.score, scored, step.coord_map, count(head.score(skip)), step.skip_crop))
    return rows


def network_name(model: FCN) -> str:
    """Such as ``FCN-8s at once, vgg16, pad official``."""
    config = model.config
    parts = [f"FCN-{config.stride}s{' at once' if config.at_once else ''}", config.backbone]
    if config.truncate:
        parts.append(f"truncated at {config.truncate}")
    if config.modalities:
        parts.append(f"late fusion of {' and '.join(config.modalities)}")
    if config.tasks:
        parts.append(f"tasks {' and '.join(config.task_classes)}")
    return ", ".join((*parts, f"pad {config.pad}"))


def network_table(model: FCN) -> Table:
    """``describe`` as a table for the terminal, and below it what holds for the whole network."""
    rows = describe(model)
    deepest = model.head.streams[0]
    path = model.backbone.path(deepest.tap)
    convolutions = sum(layer.kind == "conv" for layer in path) + 1  # and the scores
    facts = (
        f"{sum(row.parameters for row in rows):,} parameters; {convolutions} convolutions one after the other",
        f"a score sees {receptive_field(path)} pixels and lies {int(deepest.position.scale)} from the next",
        f"images of {model.backbone.in_channels} channels and at least {model.smallest_image} x {model.smallest_image}",
        "kernel: s stride, p padding, g groups; samples, in pixels: sees, step, first",
    )
    table = Table(
        title=network_name(model), caption="\n".join(facts), caption_justify="left", box=SIMPLE, pad_edge=False
    )
    table.collapse_padding = True
    table.add_column("layer", overflow="fold")
    table.add_column("kernel", overflow="fold")
    for heading in ("channels", "parameters", "sees", "step", "first"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        numbers = (row.channels, row.parameters, row.receptive_field, row.total_stride)
        table.add_row(row.layer, _kernel(row), *(f"{number:,}" for number in numbers), f"{row.first:g}")
    return table


def _kernel(row: LayerSummary) -> str:
    """Such as ``conv 3 s2 p1``: kernel size, stride, padding; what is as usual is left out."""
    parts = [row.kind.replace("conv_transpose", "deconv")]
    if row.kind not in ("lrn", "concat"):
        parts.append(f"{row.kernel_size}")
    parts += [f"s{row.stride}"] * (row.stride > 1) + [f"p{row.padding}"] * (row.padding > 0)
    parts += [f"g{row.groups}"] * (row.groups > 1) + [f"crop {row.crop}"] * (row.crop > 0)
    return " ".join(parts)
