"""Where output pixels sample a coarse map: exact affine coordinate maps.

Every bilinear upsampling in this field is, per axis, ``u = scale * y + shift`` (input pixel centres at integers) with
bilinear weights ``max(0, 1 - |u - i|)`` and a border rule. All numbers here are rationals held as integers: they stay
exact at any size, and they stay symbolic under ``torch.compile`` with dynamic shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

# Kernels compute coordinates, times the denominator, as whole numbers of 64 bits.
LIMIT = 2**62

# A scale factor is a float. It is taken for a fraction whose denominator is not larger: all that people write are.
LARGEST_DENOMINATOR = 2**14

Border = Literal["zeros", "clamp"]
BORDERS: tuple[Border, ...] = ("zeros", "clamp")


def is_whole(value: object) -> bool:
    """Whether ``value`` is a whole number. Sizes are symbolic in ``torch.compile``, tensors in ``torch.jit.trace``."""
    return isinstance(value, (int, torch.SymInt)) or (
        isinstance(value, Tensor) and torch._C._get_tracing_state() is not None
    )


def _check_pair(what: str, value: object) -> None:
    if type(value) is tuple and len(value) == 2 and type(value[0]) is int and type(value[1]) is int:
        return  # almost always, and every call makes grids
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(map(is_whole, value)):
        raise TypeError(f"{what} must be two whole numbers, (rows, columns), got {value!r}")


@dataclass(frozen=True)
class CoordMap:
    """The affine map from an index of a layer's output to the coordinate of its input that it is centred on.

    ``coordinate = scale * index + shift``, exact. Chain layers from the input on with ``then``:
    ``CoordMap.conv(3, padding=1).then(CoordMap.conv(2, stride=2))``.
    """

    scale: Fraction = Fraction(1)
    shift: Fraction = Fraction(0)

    @classmethod
    def conv(cls, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> CoordMap:
        """Convolution or pooling."""
        return cls(Fraction(stride), Fraction(dilation * (kernel_size - 1), 2) - padding)

    @classmethod
    def conv_transpose(cls, kernel_size: int, stride: int = 1, padding: int = 0) -> CoordMap:
        """Transposed convolution (Caffe: deconvolution)."""
        return cls(Fraction(1, stride), (padding - Fraction(kernel_size - 1, 2)) / stride)

    @classmethod
    def crop(cls, offset: int) -> CoordMap:
        """Dropping the first ``offset`` samples."""
        return cls(Fraction(1), Fraction(offset))

    def then(self, layer: CoordMap) -> CoordMap:
        """The map of ``layer`` applied to the output of ``self``: from its output back to the input of ``self``."""
        return CoordMap(self.scale * layer.scale, self.scale * layer.shift + self.shift)

    def crop_onto(self, reference: CoordMap) -> int:
        """Offset at which this map must be cropped so that its samples lie on those of ``reference``.

        Both maps must lead to the same input. Raises ``ValueError`` where no whole-pixel crop aligns them.
        """
        offset = (reference.shift - self.shift) / self.scale
        if self.scale != reference.scale:
            raise ValueError(
                f"no crop aligns maps of strides {self.scale} and {reference.scale}: strides must be equal"
            )
        if offset.denominator != 1 or offset < 0:
            raise ValueError(
                f"no crop aligns these maps: the offset would be {offset}, and it must be a whole number >= 0"
            )
        return int(offset)


@dataclass(frozen=True)
class BilinearGrid:
    """Output pixel ``y`` of an axis samples the input at ``(step * y + origin) / denominator``.

    Pairs are (rows, columns).

    ``border="zeros"``: taps outside the input contribute nothing, as in a transposed convolution.
    ``border="clamp"``: the coordinate is clamped to the input, as in ``F.interpolate``.
    Use the constructors ``transposed``, ``interpolate`` and ``from_maps``.
    """

    size: tuple[int, int]
    step: tuple[int, int]
    origin: tuple[int, int]
    denominator: tuple[int, int]
    border: Border = "zeros"
    # Of the input that the grid was made for, where it was made from one: operators refuse others.
    input_size: tuple[int, int] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_pair("BilinearGrid: size", self.size)
        _check_pair("BilinearGrid: step", self.step)
        _check_pair("BilinearGrid: origin", self.origin)
        _check_pair("BilinearGrid: denominator", self.denominator)
        if self.border not in BORDERS:
            raise ValueError(f"BilinearGrid: border must be one of {BORDERS}, got {self.border!r}")
        if self.size[0] < 0 or self.size[1] < 0:
            raise ValueError(f"BilinearGrid: size must not be negative, got {tuple(self.size)}")
        if self.denominator[0] < 1 or self.denominator[1] < 1:
            raise ValueError(f"BilinearGrid: denominator must be positive, got {tuple(self.denominator)}")
        if self.step[0] < 0 or self.step[1] < 0:
            raise ValueError(f"BilinearGrid: step must not be negative, got {tuple(self.step)}")
        for axis in (0, 1):
            size, step, origin, denominator = (
                self.size[axis],
                self.step[axis],
                self.origin[axis],
                self.denominator[axis],
            )
            plain = type(size) is type(step) is type(origin) is type(denominator) is int  # not to bound symbolic ones
            if plain and (denominator >= LIMIT or step * size + abs(origin) >= LIMIT):
                raise ValueError(
                    f"BilinearGrid: step * {size} pixels + origin, and denominator, must stay below 2^62, "
                    f"got step {step}, origin {origin}, denominator {denominator}"
                )

    @property
    def scale(self) -> tuple[Fraction, Fraction]:
        """Input pixels per output pixel."""
        return Fraction(self.step[0], self.denominator[0]), Fraction(self.step[1], self.denominator[1])

    @property
    def shift(self) -> tuple[Fraction, Fraction]:
        """Input coordinate of output pixel 0."""
        return Fraction(self.origin[0], self.denominator[0]), Fraction(self.origin[1], self.denominator[1])

    @property
    def is_identity(self) -> bool:
        """Whether output pixels are the input's (as far as both go)."""
        return self.step == self.denominator and self.origin == (0, 0)

    @classmethod
    def transposed(
        cls, stride: int, crop: int | tuple[int, int], size: tuple[int, int], kernel_size: int | None = None
    ) -> BilinearGrid:
        """``conv_transpose2d`` with a bilinear kernel, cropped at offset ``crop`` to ``size`` (FCN's upsampling).

        ``crop`` is one offset, or that of rows and that of columns.

        ``kernel_size`` is ``2 * stride - stride % 2`` unless given; ``2 * stride - 1`` in FCN-AlexNet and -GoogLeNet.
        Only those two are bilinear interpolation, so anything else raises ``ValueError``.
        """
        if not is_whole(stride):
            raise TypeError(f"BilinearGrid.transposed: stride must be a whole number, got {stride!r}")
        crops = crop if isinstance(crop, (tuple, list)) else (crop, crop)
        if len(crops) != 2 or not all(map(is_whole, crops)):
            raise TypeError(f"BilinearGrid.transposed: crop must be a whole number or two, got {crop!r}")
        if stride < 1:
            raise ValueError(f"BilinearGrid.transposed: stride must be at least 1, got {stride}")
        if kernel_size is None:
            kernel_size = 2 * stride - stride % 2
        if kernel_size not in (2 * stride, 2 * stride - 1) or (kernel_size == 2 * stride and stride % 2):
            raise ValueError(
                f"BilinearGrid.transposed: kernel_size for stride {stride} must be {2 * stride - 1}"
                + ("" if stride % 2 else f" or {2 * stride}")
                + f" (others do not interpolate), got {kernel_size}"
            )
        origin = (2 * crops[0] - (kernel_size - 1), 2 * crops[1] - (kernel_size - 1))
        return cls(size, (2, 2), origin, (2 * stride, 2 * stride), "zeros")

    @classmethod
    def interpolate(
        cls,
        input_size: tuple[int, int],
        output_size: tuple[int, int] | None = None,
        align_corners: bool = False,
        *,
        scale_factor: float | tuple[float, float] | None = None,
    ) -> BilinearGrid:
        """The sampling of ``F.interpolate(mode="bilinear")`` to ``output_size``, or by ``scale_factor``.

        Of a scale factor PyTorch takes the scale itself, and the size rounded down (with ``recompute_scale_factor`` it
        takes the size alone: give ``output_size``). Here it must be a fraction with a denominator up to 2^14, to a
        float's precision, and is exact; anything else raises ``ValueError``.
        """
        _check_pair("BilinearGrid.interpolate: input_size", input_size)
        (h, w) = input_size
        if scale_factor is not None:
            if output_size is not None:
                raise ValueError("BilinearGrid.interpolate: give output_size or scale_factor, not both")
            scales = _pair_of_scales(scale_factor)
            output_size = scaled_size(input_size, scales)
            if not align_corners:
                (p, q), (r, s) = _fraction(scales[0]), _fraction(scales[1])
                return cls(output_size, (2 * q, 2 * s), (q - p, s - r), (2 * p, 2 * r), "clamp", (h, w))
        _check_pair("BilinearGrid.interpolate: output_size", output_size)
        height, width = output_size  # type: ignore[misc]  # a pair, or _check_pair has raised
        if align_corners:
            # One output pixel samples coordinate 0, as in PyTorch.
            step = (h - 1 if height > 1 else 0, w - 1 if width > 1 else 0)
            denominator = (height - 1 if height > 1 else 1, width - 1 if width > 1 else 1)
            return cls((height, width), step, (0, 0), denominator, "clamp", (h, w))
        denominator = (2 * height if height > 0 else 1, 2 * width if width > 0 else 1)
        return cls((height, width), (2 * h, 2 * w), (h - height, w - width), denominator, "clamp", (h, w))

    @classmethod
    def from_maps(
        cls, size: tuple[int, int], rows: CoordMap, columns: CoordMap, border: Border = "zeros"
    ) -> BilinearGrid:
        """From one exact affine map per axis."""
        denominators = []
        for axis in (rows, columns):
            denominators.append(math.lcm(axis.scale.denominator, axis.shift.denominator))
        axes = tuple(zip((rows, columns), denominators, strict=True))
        step = tuple(int(axis.scale * d) for axis, d in axes)
        origin = tuple(int(axis.shift * d) for axis, d in axes)
        return cls(size, step, origin, (denominators[0], denominators[1]), border)  # type: ignore[arg-type]

    def as_ints(self) -> list[int]:
        """``[height, width, step, origin, denominator of rows, ... of columns, border]``: what kernels are given."""
        (height, width), (a, e), (b, f), (d, g) = self.size, self.step, self.origin, self.denominator
        return [height, width, a, b, d, e, f, g, BORDERS.index(self.border)]

    @classmethod
    def from_ints(cls, ints: list[int]) -> BilinearGrid:
        """The inverse of ``as_ints``."""
        height, width, a, b, d, e, f, g, border = ints
        return cls((height, width), (a, e), (b, f), (d, g), BORDERS[border])


def scaled_size(input_size: tuple[int, int], scales: tuple[float, float]) -> tuple[int, int]:
    """The size that ``F.interpolate`` makes of ``input_size``: in floats, rounded down."""
    return torch.sym_int(input_size[0] * scales[0]), torch.sym_int(input_size[1] * scales[1])


def _pair_of_scales(scale_factor: object) -> tuple[float, float]:
    pair = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
    if len(pair) != 2 or not all(isinstance(scale, (int, float)) for scale in pair):
        raise TypeError(f"BilinearGrid.interpolate: scale_factor must be a number or two, got {scale_factor!r}")
    if not all(0 < scale < math.inf for scale in pair):
        raise ValueError(f"BilinearGrid.interpolate: scale_factor must be positive and finite, got {scale_factor!r}")
    return float(pair[0]), float(pair[1])


def _fraction(scale: float) -> tuple[int, int]:
    """The fraction that ``scale`` was written as, by continued fractions (``fractions`` would break a graph)."""
    (p, q), (before_p, before_q) = (1, 0), (0, 1)
    numerator, denominator = scale.as_integer_ratio()
    while denominator:
        whole = numerator // denominator
        numerator, denominator = denominator, numerator - whole * denominator
        (p, q), (before_p, before_q) = (whole * p + before_p, whole * q + before_q), (p, q)
        if q > LARGEST_DENOMINATOR:
            break
        if abs(p / q - scale) <= 1e-12 * scale:
            return p, q
    raise ValueError(
        f"BilinearGrid.interpolate: scale_factor {scale} is no fraction with a denominator up to "
        f"{LARGEST_DENOMINATOR}; give the output's size"
    )
