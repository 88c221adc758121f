"""What a backbone is: the layers of a classifier, and which of its maps a fully convolutional network scores."""

from __future__ import annotations

from dataclasses import dataclass

from ..geometry import Layer
from .net import Net


@dataclass(frozen=True)
class Architecture:
    """A classifier as published, from the image to its class scores, and where an FCN reads it."""

    layers: tuple[Layer, ...]
    image_size: int
    """Height and width of the classifier's images."""
    taps: tuple[str, str, str, str]
    """Layers whose maps are scored, coarsest first: strides 32, 16, 8 and, which the paper does not, 4."""
    official_padding: int | None = 100
    """Padding of the first layer in the published FCN; None: as in the classifier."""

    @property
    def parameters(self) -> dict[str, int]:
        """Modules with parameters, batch normalizations among them, and their output channels, in order."""
        found = {}
        for layer in self.layers:
            if layer.kind in ("conv", "linear"):
                found[layer.name] = layer.channels
                if "batch_norm" in layer.then:
                    found[f"{layer.name}_norm"] = layer.channels
        return found

    @property
    def normalized(self) -> bool:
        """Whether it has batch normalization."""
        return any("batch_norm" in layer.then for layer in self.layers)

    def classifier(self, in_channels: int = 3, dropout: float = 0.5) -> Net:
        """The classifier with fresh parameters; its class scores ``[N, classes]`` are its only output."""
        return Net(self.layers, (self.layers[-1].name,), in_channels, dropout)
