"""A network as a table: layers, geometry, parameters."""

from __future__ import annotations

from dataclasses import dataclass

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

    def row(
        name: str, path: tuple[Layer, ...], position: CoordMap, *modules: nn.Module | None, crop: int = 0
    ) -> LayerSummary:
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
            sum(p.numel() for module in modules if module is not None for p in module.parameters()),
            receptive_field(path),
            int(position.scale),
            float(position.shift),
        )

    rows = []
    for modality, trunk in model.trunks.items():
        for layer in trunk.layers:
            modules = [getattr(trunk, name, None) for name in (layer.name, f"{layer.name}_norm")]
            name = ".".join(filter(None, (modality, layer.name)))
            rows.append(row(name, trunk.path(layer.name), trunk.coord_map(layer.name), *modules))

    head, classes = model.head, model.config.classes
    deepest, *skips = head.streams
    path = (*model.backbone.path(deepest.tap), Layer(deepest.score, "conv", classes))
    rows.append(row(deepest.score, path, deepest.position, head.score(deepest)))
    for name, skip in zip((*head.fusions, head.last), (*skips, None), strict=True):
        upsample = head.upsample(name)
        step = upsample.geometry
        path = (*path, step.layer)
        rows.append(row(name, path, step.coord_map, upsample, crop=step.crop))
        if skip is not None:
            scored = (*model.backbone.path(skip.tap), Layer(skip.score, "conv", classes))
            rows.append(row(skip.score, scored, step.coord_map, head.score(skip), crop=step.skip_crop))
    return rows
