"""How raw images become network input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

ChannelOrder = Literal["rgb", "bgr", "gray"]
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's mode "L".


@dataclass(frozen=True)
class Preprocessing:
    """``(image / scale - mean) / std`` per channel, in ``channel_order``. Saved with the weights.

    Values beyond those of the colors are for further channels of an image (depth), which keep their order.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: ChannelOrder = "rgb"
    scale: float = 255.0

    def __post_init__(self) -> None:
        if self.channel_order not in get_args(ChannelOrder):
            raise ValueError(f"channel_order must be one of {get_args(ChannelOrder)}, got {self.channel_order!r}")
        colors = 1 if self.channel_order == "gray" else 3
        if len(self.mean) != len(self.std) or len(self.mean) < colors or (colors == 1 and len(self.mean) > 1):
            wanted = f"{colors} values for {self.channel_order!r}"
            raise ValueError(f"mean and std must have {wanted}, got {self.mean} and {self.std}")
        if min(self.std) <= 0 or self.scale <= 0:
            raise ValueError(f"std and scale must be positive, got {self.std} and {self.scale}")

    @property
    def channels(self) -> int:
        """Channels of the network input."""
        return len(self.mean)

    def __call__(self, image: np.ndarray[Any, Any]) -> Tensor:
        """A uint8 image ``[H, W]``, ``[H, W, 3]`` (RGB) or ``[H, W, 4]`` (alpha is dropped) as float32 ``[C, H, W]``;
        with further channels uint8 or float32 ``[H, W, C]``.

        Gray images are repeated into three channels and colors made gray as the network asks. Raises ``TypeError`` or
        ``ValueError`` for anything else.
        """
        values = _pixels(image, self.channels).astype(np.float32)
        if self.channel_order == "gray":
            values = (values @ _LUMA)[:, :, None] if image.ndim == 3 else values[:, :, :1]
        elif self.channel_order == "bgr":
            values = np.concatenate((values[:, :, 2::-1], values[:, :, 3:]), axis=2)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        values = (values / np.float32(self.scale) - mean) / std
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))

    @classmethod
    def fit(cls, images: Iterable[np.ndarray[Any, Any]]) -> Preprocessing:
        """From the mean and deviation of a training set; ``"gray"`` if all images are ``[H, W]``, else ``"rgb"``.

        Images as for a call; those of uint8 with four channels are colors and alpha. Raises ``TypeError`` or
        ``ValueError`` for others, for images of different numbers of channels, and for none.
        """
        count, total, squares, gray, scale = 0, np.zeros(1), np.zeros(1), True, 255.0
        for image in images:
            gray = gray and image.ndim == 2
            further = image.ndim == 3 and (image.shape[2] > 4 or (image.shape[2] == 4 and image.dtype != np.uint8))
            values = _pixels(image, image.shape[2] if further else 3).astype(np.float64)
            if count and values.shape[2] != len(total):
                raise ValueError(f"Preprocessing.fit: images of {len(total)} and of {values.shape[2]} channels")
            scale = 255.0 if image.dtype == np.uint8 else 1.0
            count += values.shape[0] * values.shape[1]
            total = total + values.sum((0, 1))
            squares = squares + np.square(values).sum((0, 1))
        if count == 0:
            raise ValueError("Preprocessing.fit: there is no pixel in these images")
        mean = total / count / scale
        variance = squares / count / scale**2 - mean**2
        # A channel that hardly varies is centered only: a tiny divisor would magnify its rounding.
        std = np.where(variance > 1e-6, np.sqrt(np.maximum(variance, 1e-6)), 1.0)
        channels = 1 if gray else len(mean)
        return cls(tuple(mean.tolist()[:channels]), tuple(std.tolist()[:channels]), "gray" if gray else "rgb", scale)


def _pixels(image: np.ndarray[Any, Any], channels: int) -> np.ndarray[Any, Any]:
    """``[H, W, 3]`` of any colors; an image of more channels as it is."""
    if channels <= 3:
        return rgb(image)
    if image.ndim != 3 or image.shape[2] != channels:
        raise ValueError(f"image must be [H, W, {channels}], got shape {image.shape}")
    if image.dtype not in (np.uint8, np.float32):
        raise TypeError(f"image must be uint8 or float32, got {image.dtype}")
    return image


def rgb(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """uint8 ``[H, W, 3]`` of a gray image, of colors, or of colors and alpha."""
    if image.dtype != np.uint8:
        raise TypeError(f"image must be uint8, got {image.dtype}")
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim == 3 and image.shape[2] in (3, 4):
        return image[:, :, :3]
    raise ValueError(f"image must be [H, W], [H, W, 3] or [H, W, 4], got shape {image.shape}")


CAFFE_VGG = Preprocessing((104.007, 116.669, 122.679), (1.0, 1.0, 1.0), "bgr", scale=1.0)
"""What Caffe's VGG weights, and so the published networks, were trained with."""
EFFICIENTNET_LITE = Preprocessing((127.0,) * 3, (128.0,) * 3, "rgb", scale=1.0)
"""What EfficientNet-Lite's weights were trained with, in TensorFlow."""
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "rgb")
"""What torchvision's weights were trained with."""
