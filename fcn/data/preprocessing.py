"""How raw images become network input."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .files import Levels, at_levels, eight_bits
from .resizing import reduced_size, resized_image

ChannelOrder = Literal["rgb", "bgr", "gray"]
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's mode "L".


@dataclass(frozen=True)
class Preprocessing:
    """``(image / scale - mean) / std`` per channel, in ``channel_order``. Saved with the weights.

    Values beyond those of the colors are for further channels of an image (depth), which keep their order.
    ``levels``: the values of 16-bit images that are taken as 0 and 255, from the training images; None: 0 and 65535,
    rounded to 8 bits.
    ``longest_side``: a longer side of an image is first reduced to this many pixels; labels keep its size.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: ChannelOrder = "rgb"
    scale: float = 255.0
    levels: Levels | None = None
    longest_side: int | None = None

    def __post_init__(self) -> None:
        if self.channel_order not in get_args(ChannelOrder):
            raise ValueError(f"channel_order must be one of {get_args(ChannelOrder)}, got {self.channel_order!r}")
        colors = 1 if self.channel_order == "gray" else 3
        if len(self.mean) != len(self.std) or len(self.mean) < colors or (colors == 1 and len(self.mean) > 1):
            wanted = f"{colors} values for {self.channel_order!r}"
            raise ValueError(f"mean and std must have {wanted}, got {self.mean} and {self.std}")
        if not all(map(math.isfinite, (*self.mean, *self.std, self.scale, *(self.levels or ())))):
            raise ValueError(f"mean, std, scale and levels must be finite, got {self}")
        if min(self.std) <= 0 or self.scale <= 0:
            raise ValueError(f"std and scale must be positive, got {self.std} and {self.scale}")
        if self.levels is not None and not (len(self.levels) == 2 and self.levels[0] < self.levels[1]):
            raise ValueError(f"levels must be two ascending values, got {self.levels}")
        if self.longest_side is not None and self.longest_side < 1:
            raise ValueError(f"longest_side must be at least 1 pixel, got {self.longest_side}")

    @property
    def channels(self) -> int:
        """Channels of the network input."""
        return len(self.mean)

    def reduced(self, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """An image ``[H, W(, C)]`` as the network is to see it: no larger than ``longest_side``."""
        height, width = image.shape[:2]
        return resized_image(image, reduced_size((height, width), self.longest_side))

    def __call__(self, image: np.ndarray[Any, Any]) -> Tensor:
        """A uint8 or uint16 image ``[H, W]``, ``[H, W, 3]`` (RGB) or ``[H, W, 4]`` (alpha is dropped) as float32
        ``[C, H, W]``; with further channels uint8 or float32 ``[H, W, C]``.

        Gray images are repeated into three channels and colors made gray as the network asks. Raises ``TypeError`` or
        ``ValueError`` for anything else.
        """
        pixels = _pixels(image, self.channels)
        if pixels.dtype == np.uint16:
            pixels = eight_bits(pixels) if self.levels is None else at_levels(pixels, self.levels)
        values = pixels.astype(np.float32)
        if self.channel_order == "gray":
            values = (values @ LUMA)[:, :, None] if image.ndim == 3 else values[:, :, :1].copy()
        elif self.channel_order == "bgr":
            values = np.concatenate((values[:, :, 2::-1], values[:, :, 3:]), axis=2)
        values /= np.float32(self.scale)  # in place: a large image is copied as rarely as can be
        values -= np.asarray(self.mean, np.float32)
        values /= np.asarray(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))

    @classmethod
    def fit(cls, images: Iterable[np.ndarray[Any, Any]]) -> Preprocessing:
        """From the mean and deviation of a training set; ``"gray"`` if all images are ``[H, W]``, else ``"rgb"``.

        Images as for a call; those of uint8 and uint16 with four channels are colors and alpha. 16-bit images are taken
        at the levels of ``Histogram``. Raises ``TypeError`` or ``ValueError`` for others, for images of different
        numbers of channels, and for none.
        """
        count, seen, total, squares, gray, scale = 0, 0, np.zeros(1), np.zeros(1), True, 255.0
        histogram = Histogram()
        for image in images:
            gray = gray and image.ndim == 2
            further = image.ndim == 3 and (image.shape[2] > 4 or (image.shape[2] == 4 and image.dtype == np.float32))
            pixels = _pixels(image, image.shape[2] if further else 3)
            if seen not in (0, pixels.shape[2]):
                raise ValueError(f"Preprocessing.fit: images of {seen} and of {pixels.shape[2]} channels")
            seen = pixels.shape[2]
            if pixels.dtype == np.uint16:
                histogram.add(pixels)
                continue
            scale = 255.0 if image.dtype == np.uint8 else 1.0
            count += pixels.shape[0] * pixels.shape[1]
            sums = _sums(pixels)
            total, squares = total + sums[0], squares + sums[1]
        levels = histogram.levels()
        if levels is not None:
            values = at_levels(np.arange(1 << 16), levels).astype(np.float64)
            count += histogram.pixels
            total = total + histogram.counts @ values
            squares = squares + histogram.counts @ np.square(values)
        if count == 0:
            raise ValueError("Preprocessing.fit: there is no pixel in these images")
        mean = total / count / scale
        variance = squares / count / scale**2 - mean**2
        # A channel that hardly varies is centered only: a tiny divisor would magnify its rounding.
        std = np.where(variance > 1e-6, np.sqrt(np.maximum(variance, 1e-6)), 1.0)
        channels = 1 if gray else len(mean)
        order: ChannelOrder = "gray" if gray else "rgb"
        return cls(tuple(mean.tolist()[:channels]), tuple(std.tolist()[:channels]), order, scale, levels)

    def for_images(self, images: Iterable[np.ndarray[Any, Any]]) -> Preprocessing:
        """With levels from these images, if the first has 16 bits; else as it is, and no other image is read."""
        histogram = Histogram()
        for image in images:
            if image.dtype == np.uint16:
                histogram.add(_pixels(image, 3))
            elif not histogram.pixels:
                return self
        return replace(self, levels=histogram.levels())


class Histogram:
    """Of the values of 16-bit images, by channel."""

    def __init__(self) -> None:
        self.counts = np.zeros((3, 1 << 16), np.int64)

    @property
    def pixels(self) -> int:
        return int(self.counts[0].sum())

    def add(self, image: np.ndarray[Any, Any]) -> None:
        """uint16 ``[H, W, 3]``."""
        gray = image.strides[2] == 0  # one channel, seen three times
        channels = [image[:, :, 0]] if gray else np.moveaxis(image, 2, 0)
        self.counts += np.stack([np.bincount(channel.ravel(), minlength=1 << 16) for channel in channels])

    def levels(self) -> Levels | None:
        """Between which all but a thousandth of the values at either end lie; None without images."""
        if not self.pixels:
            return None
        below = np.cumsum(self.counts.sum(0))
        low, high = (int(np.searchsorted(below, part * below[-1])) for part in (0.001, 0.999))
        return float(low), float(max(high, low + 1))


def _pixels(image: np.ndarray[Any, Any], channels: int) -> np.ndarray[Any, Any]:
    """``[H, W, 3]`` of any colors; an image of more channels as it is."""
    if channels <= 3:
        return rgb(image)
    if image.ndim != 3 or image.shape[2] != channels:
        raise ValueError(f"image must be [H, W, {channels}], got shape {image.shape}")
    if image.dtype not in (np.uint8, np.float32):
        raise TypeError(f"image must be uint8 or float32, got {image.dtype}")
    return image


def _sums(pixels: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The sums of the values of ``[H, W, C]`` and of their squares, by channel."""
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:  # exact, and ten times as fast as by the pixel
        counts = np.reshape(Image.fromarray(np.ascontiguousarray(pixels)).histogram(), (3, 256))
        levels = np.arange(256.0)
        return counts @ levels, counts @ np.square(levels)
    values = pixels.astype(np.float64)
    return values.sum((0, 1)), np.square(values).sum((0, 1))


def rgb(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """uint8 or uint16 ``[H, W, 3]`` of a gray image, of colors, or of colors and alpha."""
    if image.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"image must be uint8 or uint16, got {image.dtype}")
    if image.ndim == 2:
        return np.broadcast_to(image[:, :, None], (*image.shape, 3))
    if image.ndim == 3 and image.shape[2] in (3, 4):
        return image[:, :, :3]
    raise ValueError(f"image must be [H, W], [H, W, 3] or [H, W, 4], got shape {image.shape}")


CAFFE_VGG = Preprocessing((104.007, 116.669, 122.679), (1.0, 1.0, 1.0), "bgr", scale=1.0)
"""What Caffe's VGG weights, and so the published networks, were trained with."""
EFFICIENTNET_LITE = Preprocessing((127.0,) * 3, (128.0,) * 3, "rgb", scale=1.0)
"""What EfficientNet-Lite's weights were trained with, in TensorFlow."""
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "rgb")
"""What torchvision's weights were trained with."""
