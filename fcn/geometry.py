"""Sizes, coordinate maps, receptive fields and crops of a network, all computed from the list of its layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fcn_kernels import BilinearGrid, CoordMap
from fcn_kernels.grid import Border


@dataclass(frozen=True)
class Layer:
    """One convolution, pooling or transposed convolution, the same along rows and columns.

    ``channels`` is the number of output channels. Pooling rounds its output size up, as Caffe does: with rounding down,
    FCN-32s is smaller than its image for 12 of 32 image sizes.
    """

    name: str
    kind: Literal["conv", "pool", "conv_transpose"]
    channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0

    def output_size(self, size: int) -> int:
        """Length of the output for an input of length ``size``; ``ValueError`` where nothing would be left."""
        if self.kind == "conv_transpose":
            out = self.stride * (size - 1) + self.kernel_size - 2 * self.padding
        elif self.kind == "conv":
            out = (size + 2 * self.padding - self.kernel_size) // self.stride + 1
        else:
            out = -((self.kernel_size - size - 2 * self.padding) // self.stride) + 1
            if (out - 1) * self.stride >= size + self.padding:
                out -= 1  # The last window would start past the input.
        if size < 1 or out < 1:
            raise ValueError(
                f"{self.name}: an input of size {size} is too small for its kernel of size {self.kernel_size}"
            )
        return out

    @property
    def coord_map(self) -> CoordMap:
        """From an index of the output to the coordinate of the input under the center of the filter."""
        if self.kind == "conv_transpose":
            return CoordMap.conv_transpose(self.kernel_size, self.stride, self.padding)
        return CoordMap.conv(self.kernel_size, self.stride, self.padding)


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


def receptive_field(layers: Iterable[Layer]) -> int:
    """Width in input pixels of what one output sample of a chain of layers can see."""
    field, step = 1, 1  # `step`: input pixels between neighboring samples.
    for layer in layers:
        if layer.kind == "conv_transpose":
            field += (-(-layer.kernel_size // layer.stride) - 1) * step
            step //= layer.stride
        else:
            field += (layer.kernel_size - 1) * step
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

        ``border="zeros"`` is the published transposed convolution, whose output fades to zero at the edges of the map;
        ``"clamp"`` continues the edge values, as ``F.interpolate`` does.
        """
        ratio = coarse.scale / fine.scale
        if ratio.denominator != 1:
            raise ValueError(f"{name}: strides {coarse.scale} and {fine.scale} are not whole multiples")
        stride = int(ratio)
        layer = Layer(name, "conv_transpose", channels, 2 * stride - stride % 2, stride)
        upsampled = coarse.then(layer.coord_map)
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
        grid = BilinearGrid.transposed(self.layer.stride, self.crop, size)
        return BilinearGrid(size, grid.step, grid.origin, grid.denominator, self.border)
