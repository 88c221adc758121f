"""Networks that run a list of layers, and the one step from a classifier to a fully convolutional network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcn_kernels import CoordMap

from ..convolution import Convolution
from ..geometry import Layer, coord_map, paths
from .traced import Traced


class Net(nn.Module):
    """Runs ``layers`` as far as ``taps`` need them, and gives the maps of ``taps``.

    Parameters are named after their layers (``conv1_1.weight``) and He-initialized. Maps are kept in channels_last,
    whatever the images are: on a CPU, ``small`` trains in about two thirds of the time, and labels in less than half.
    """

    def __init__(
        self, layers: Sequence[Layer], taps: Sequence[str], in_channels: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        sources = {layer.name: layer.inputs or before for layer, before in zip(layers, _previous(layers), strict=True)}
        unknown = [tap for tap in taps if tap not in sources]
        if unknown:
            raise ValueError(f"no layer is named {', '.join(unknown)}; there are {', '.join(sources)}")
        needed: set[str] = set(taps)
        for layer in reversed(layers):
            if layer.name in needed:
                needed.update(sources[layer.name])
        self.layers = tuple(layer for layer in layers if layer.name in needed)
        self.taps = tuple(taps)
        self.in_channels = in_channels
        self.dropout = dropout
        self._sources = sources
        self._paths = paths(self.layers)
        # After the last layer that reads a map, it is let go.
        last_reader = {name: layer.name for layer in self.layers for name in sources[layer.name]}
        self._finished = {
            layer.name: [name for name, reader in last_reader.items() if reader == layer.name and name not in taps]
            for layer in self.layers
        }
        channels: dict[str, int] = {}
        for layer in self.layers:
            widths = [channels[name] for name in sources[layer.name]] or [in_channels]
            if layer.kind == "sum" and len(set(widths)) > 1:
                raise ValueError(f"{layer.name}: it adds maps of {' and '.join(map(str, widths))} channels")
            self._add_parameters(layer, widths[0] if layer.kind == "sum" else sum(widths))
            channels[layer.name] = layer.channels

    def _add_parameters(self, layer: Layer, in_channels: int) -> None:
        if layer.kind == "conv_transpose":
            raise ValueError(f"{layer.name}: a trunk has no conv_transpose layers")
        if layer.kind not in ("conv", "linear"):
            if layer.channels != in_channels:
                raise ValueError(f"{layer.name}: it has {layer.channels} channels, its input {in_channels}")
            return
        normalized = "batch_norm" in layer.then
        module: Convolution | nn.Linear
        if layer.kind == "conv":
            shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups)
            module = Convolution(in_channels, layer.channels, *shape, bias=not normalized)
        else:
            module = nn.Linear(in_channels * layer.kernel_size**2, layer.channels, bias=not normalized)
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        self.add_module(layer.name, module)
        if normalized:
            self.add_module(f"{layer.name}_norm", nn.BatchNorm2d(layer.channels, layer.epsilon))

    def path(self, tap: str) -> tuple[Layer, ...]:
        """The layers from the image to ``tap``; where branches meet, those that see most."""
        return self._paths[tap]

    def channels(self, tap: str) -> int:
        return self._paths[tap][-1].channels

    def parameters_of(self, layer: str) -> int:
        """How many numbers a layer and its normalization learn."""
        modules = (getattr(self, name, None) for name in (layer, f"{layer}_norm"))
        return sum(p.numel() for module in modules if module is not None for p in module.parameters())

    def coord_map(self, tap: str) -> CoordMap:
        """From an index of the map ``tap`` to the image coordinate that it is centered on."""
        return coord_map(self._paths[tap])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``[N, in_channels, H, W]`` to ``{tap: [N, channels, h, w]}``; after linear layers ``[N, channels]``."""
        maps: dict[str, Tensor] = {}
        # Not contiguous(): for one channel only to() gives the strides by which convolutions recognize the format.
        images = images.to(memory_format=torch.channels_last)
        for layer in self.layers:
            inputs = [maps[name] for name in self._sources[layer.name]] or [images]
            maps[layer.name] = self._run(layer, inputs)
            for name in self._finished[layer.name]:
                del maps[name]
        return {tap: maps[tap] for tap in self.taps}

    def _run(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        x, then = inputs[0], layer.then
        if layer.kind == "conv":
            if layer.end_padding:
                x = F.pad(x, (0, layer.end_padding, 0, layer.end_padding))
            relu = then[:1] == ("relu",)
            x = getattr(self, layer.name)(x, relu=relu)
            then = then[1:] if relu else then
        elif layer.kind == "linear":
            if x.dim() == 4 and x.shape[2:] != (layer.kernel_size, layer.kernel_size):
                raise ValueError(
                    f"{layer.name}: fully connected to a map of size {layer.kernel_size}, got {tuple(x.shape[2:])}; "
                    "convolutionalize takes images of any size"
                )
            x = getattr(self, layer.name)(x.flatten(1))
        elif layer.kind == "pool":
            x = F.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, not layer.rounds_down)
        elif layer.kind == "avg_pool":
            x = F.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, not layer.rounds_down)
        elif layer.kind == "lrn":
            x = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75)  # the settings of CaffeNet and GoogLeNet
        elif layer.kind == "sum":
            for other in inputs[1:]:
                x = x + other
        else:
            x = torch.cat(inputs, 1)
        for operation in then:
            if operation == "batch_norm":
                x = getattr(self, f"{layer.name}_norm")(x)
            elif operation == "relu":
                x = F.relu(x, inplace=True)
            elif operation == "relu6":
                x = F.relu6(x, inplace=True)
            else:
                x = F.dropout(x, self.dropout, self.training)
        return x


class Modalities(nn.ModuleDict):
    """A trunk for each modality (color, depth), run on its part of the input channels; their maps are joined.

    A 1x1 convolution of the joined map is the sum of one of each map: late fusion (CVPR 2015, section 5, NYUDv2).
    """

    def __init__(self, trunks: Mapping[str, Net | Traced]) -> None:
        super().__init__(trunks)
        self.in_channels = sum(trunk.in_channels for trunk in trunks.values())
        self.taps = self.trunks()[0].taps

    def trunks(self) -> list[Net | Traced]:
        return [cast(Net | Traced, trunk) for trunk in self.values()]

    def path(self, tap: str) -> tuple[Layer, ...]:
        return self.trunks()[0].path(tap)

    def channels(self, tap: str) -> int:
        return sum(trunk.channels(tap) for trunk in self.trunks())

    def coord_map(self, tap: str) -> CoordMap:
        return self.trunks()[0].coord_map(tap)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.joined(self.trunks(), images)

    def joined(self, runs: Sequence[Callable[[Tensor], Mapping[str, Tensor]]], images: Tensor) -> dict[str, Tensor]:
        """The joined maps where ``runs`` compute those of each trunk."""
        parts = images.split([trunk.in_channels for trunk in self.trunks()], dim=1)
        maps = [run(part) for run, part in zip(runs, parts, strict=True)]
        return {tap: torch.cat([features[tap] for features in maps], 1) for tap in self.taps}


def convolutionalize(
    classifier: Net,
    taps: Sequence[str] | None = None,
    *,
    padding: int | Literal["same"] | None = None,
    discard_average: bool = False,
) -> Net:
    """The classifier as a network for images of any size (CVPR 2015, section 3.1): fully connected layers become
    convolutions with the same weights, which share the classifier's memory.

    A score of the result is the classifier's on the window that it sees, but for what zero padding inside the
    classifier hides from it. ``taps``: the layers whose maps are wanted, the classifier's by default. ``padding``: None
    keeps the classifier's; a number is that of the first layer, 100 in the published networks: their way to make any
    image large enough; ``"same"`` pads each layer by half its filter: the same at half the work for VOC's sizes.
    ``discard_average``: without the average pooling before the scores, as the paper's FCN-GoogLeNet.
    """
    layers = list(classifier.layers)
    for index, layer in enumerate(layers):
        if layer.kind == "avg_pool" and discard_average:
            layer = replace(layer, kernel_size=1)
        if layer.kind == "linear":
            layer = replace(layer, kind="conv", padding=layer.kernel_size // 2 if padding == "same" else 0)
        elif padding == "same":
            layer = replace(layer, padding=(layer.field - 1) // 2, end_padding=0)
        elif padding is not None and index == 0:
            layer = replace(layer, padding=padding)
        layers[index] = layer
    with torch.device("meta"):
        net = Net(layers, classifier.taps if taps is None else taps, classifier.in_channels, classifier.dropout)
    given = classifier.state_dict()
    net.load_state_dict({k: given[k].reshape(v.shape) for k, v in net.state_dict().items()}, assign=True)
    return net.train(classifier.training)


def _previous(layers: Sequence[Layer]) -> list[tuple[str, ...]]:
    """For each layer the name of the one before it."""
    return [(), *((layer.name,) for layer in layers[:-1])]
