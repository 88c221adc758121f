"""Sizes, coordinate maps, receptive fields and crops of a network, all computed from the list of its layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from fcn_kernels import BilinearGrid, CoordMap
from fcn_kernels.grid import Border

Kind = Literal["conv", "linear", "pool", "avg_pool", "lrn", "concat", "sum", "conv_transpose"]
Pointwise = Literal["batch_norm", "relu", "relu6", "dropout"]


@dataclass(frozen=True)
class Layer:
    """One layer of a network, the same along rows and columns.

    ``channels`` is the number of output channels. ``linear`` is fully connected to a map of ``kernel_size`` cells a
    side; ``pool`` takes the maximum; ``lrn`` is Caffe's local response normalization; ``concat`` joins the channels of
    its inputs, and ``sum`` adds them. Pooling rounds its output size up, as Caffe does: with rounding down, FCN-32s is
    smaller than its image for 12 of 32 image sizes.
    """

    name: str
    kind: Kind
    channels: int
    kernel_size: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    inputs: tuple[str, ...] = ()
    """Names of the layers that it reads; the one before it if empty."""
    then: tuple[Pointwise, ...] = ()
    """What is applied to each element of its output, in this order."""
    end_padding: int = 0
    """Zeros after the last row and column beyond ``padding``, of a convolution: what TensorFlow's ``SAME`` gives maps
    of even size before a stride of 2."""
    epsilon: float = 1e-5
    """Of its batch normalization."""
    rounds_down: bool = False
    """Of a pooling: windows that reach past the input are left out."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"{self.name}: a layer's kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}"
            )
        for operation in self.then:
            if operation not in get_args(Pointwise):
                known = ", ".join(get_args(Pointwise))
                raise ValueError(f"{self.name}: what follows a layer must be of {known}, got {operation!r}")

    @property
    def field(self) -> int:
        """Width of the filter with the gaps that dilation makes."""
        return (self.kernel_size - 1) * self.dilation + 1

    def output_size(self, size: int) -> int:
        """Length of the output for an input of length ``size``; ``ValueError`` where nothing would be left."""
        if self.kind == "linear" and size != self.kernel_size:
            raise ValueError(f"{self.name}: fully connected to a map of size {self.kernel_size}, got size {size}")
        if self.kind == "conv_transpose":
            out = self.stride * (size - 1) + self.field - 2 * self.padding
        elif self.kind in ("pool", "avg_pool") and not self.rounds_down:
            out = -((self.field - size - 2 * self.padding) // self.stride) + 1
            if (out - 1) * self.stride >= size + self.padding:
                out -= 1  # The last window would start past the input.
        else:
            out = (size + 2 * self.padding + self.end_padding - self.field) // self.stride + 1
        if size < 1 or out < 1:
            raise ValueError(f"{self.name}: an input of size {size} is too small for its kernel of size {self.field}")
        return out

    @property
    def coord_map(self) -> CoordMap:
        """From an index of the output to the coordinate of the input under the center of the filter."""
        if self.kind == "conv_transpose":
            return CoordMap.conv_transpose(self.field, self.stride, self.padding)
        return CoordMap.conv(self.kernel_size, self.stride, self.padding, self.dilation)


def paths(layers: Iterable[Layer]) -> dict[str, tuple[Layer, ...]]:
    """For each layer the chain that leads to it from the image; where branches meet, the one that sees most.

    ``ValueError`` for an input that is not a layer before, and for branches whose samples lie at different places.
    """
    chains: dict[str, tuple[Layer, ...]] = {}
    last: tuple[str, ...] = ()
    for layer in layers:
        unknown = [name for name in layer.inputs if name not in chains]
        if unknown:
            raise ValueError(f"{layer.name}: no layer before it is named {', '.join(unknown)}")
        branches = [chains[name] for name in layer.inputs or last] or [()]
        if len({coord_map(branch) for branch in branches}) > 1:
            raise ValueError(f"{layer.name}: its inputs {', '.join(layer.inputs)} are not aligned")
        chains[layer.name] = (*max(branches, key=receptive_field), layer)
        last = (layer.name,)
    return chains


def output_size(layers: Iterable[Layer], size: int) -> int:
    """Length of the output of a chain of layers."""
    for layer in layers:
        size = layer.output_size(size)
    return size


def coord_map(layers: Iterable[Layer]) -> CoordMap:
    """From an index of the output of a chain of layers to a coordinate of its input."""
    position = CoordMap()
    for layer in layers:
        position = position.then(layer.coord_map)
    return position


def total_stride(layers: Iterable[Layer]) -> int:
    """Input pixels between neighboring output samples of a chain of layers."""
    return int(coord_map(layers).scale)


def receptive_field(layers: Iterable[Layer]) -> int:
    """Width in input pixels of what one output sample of a chain of layers can see."""
    field, step = 1, 1  # `step`: input pixels between neighboring samples.
    for layer in layers:
        if layer.kind == "conv_transpose":
            field += (-(-layer.field // layer.stride) - 1) * step
            step //= layer.stride
        else:
            field += (layer.field - 1) * step
            step *= layer.stride
    return field


@dataclass(frozen=True)
class Upsampling:
    """Bilinear upsampling of a coarse map onto the samples of a finer one: a skip's scores, or the image.

    The upsampled map and the finer one have equal strides but start at different places, so the one that starts earlier
    is cropped: ``crop`` samples of the upsampled map, or ``skip_crop`` of the finer one. Crops are never centered.
    """

    layer: Layer
    crop: int
    skip_crop: int
    coord_map: CoordMap
    border: Border

    @classmethod
    def onto(cls, name: str, channels: int, coarse: CoordMap, fine: CoordMap, border: Border) -> Upsampling:
        """From where the samples of both maps lie in the image; ``ValueError`` where no whole-pixel crop aligns them.

        The kernel of stride s has size 2s (VGG) or 2s - 1 (AlexNet, GoogLeNet), whichever aligns them.
        ``border="zeros"`` is the published transposed convolution, whose output fades to zero at the edges of the map;
        ``"clamp"`` continues the edge values, as ``F.interpolate`` does.
        """
        ratio = coarse.scale / fine.scale
        if ratio.denominator != 1:
            raise ValueError(f"{name}: strides {coarse.scale} and {fine.scale} are not whole multiples")
        stride = int(ratio)
        for kernel_size in (2 * stride - stride % 2, 2 * stride - 1):
            layer = Layer(name, "conv_transpose", channels, kernel_size, stride)
            upsampled = coarse.then(layer.coord_map)
            if ((upsampled.shift - fine.shift) / fine.scale).denominator == 1:
                break
        if upsampled.shift <= fine.shift:
            crop, skip_crop = upsampled.crop_onto(fine), 0
        else:
            crop, skip_crop = 0, fine.crop_onto(upsampled)
        return cls(layer, crop, skip_crop, fine.then(CoordMap.crop(skip_crop)), border)

    def overlap(self, coarse: int, fine: int) -> int:
        """Length of what the upsampled map and the finer map have in common, from their lengths before cropping."""
        return min(self.layer.output_size(coarse) - self.crop, fine - self.skip_crop)

    def grid(self, size: tuple[int, int]) -> BilinearGrid:
        """Where an output of ``size`` samples the coarse map."""
        grid = BilinearGrid.transposed(self.layer.stride, self.crop, size, self.layer.kernel_size)
        return BilinearGrid(size, grid.step, grid.origin, grid.denominator, self.border)
