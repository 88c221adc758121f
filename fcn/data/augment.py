"""Random views of a sample: each a function of the sample and a seed alone, so training can be repeated and resumed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .distortion import blurred, noisy, relit, warped
from .files import VOID
from .resizing import resized_image, resized_labels

SCALES = (1 / 64, 16.0)
LARGEST_SIDE = 8192
"""Beyond these a view would take gigabytes."""
STRONGEST = {"rotate": 180.0, "elastic": 1000.0, "blur": 100.0, "noise": 10.0, "light": 1.0}


@dataclass(frozen=True)
class Augmentation:
    """Random views for training; the defaults change nothing.

    mirror: flip left and right in half of the views.
    scale: smallest and largest factor of a random resize (uniform in its logarithm).
    jitter: shift by up to this many pixels along each axis; what comes into view is the mean color, labeled void.
    crop: height and width of a random crop; smaller images are padded with the mean color, labeled void. None: no crop.
    rotate: turn by up to so many degrees; what comes into view is as with ``jitter``.
    elastic: bend, by displacements with a deviation of so many pixels (for microscopy about 10).
    blur: under a Gaussian with a deviation of up to so many pixels.
    noise: add Gaussian noise of up to this part of each channel's deviation.
    light: change contrast, brightness and tint by up to this part.
    """

    mirror: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    jitter: int = 0
    crop: tuple[int, int] | None = None
    rotate: float = 0.0
    elastic: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    light: float = 0.0

    def __post_init__(self) -> None:
        low, high = SCALES
        if not low <= self.scale[0] <= self.scale[1] <= high:
            raise ValueError(
                f"augment.scale must be two factors, the smaller one first, from {low:g} to {high:g}, "
                f"got {list(self.scale)}"
            )
        if not 0 <= self.jitter <= LARGEST_SIDE:
            raise ValueError(f"augment.jitter must be 0 to {LARGEST_SIDE} pixels, got {self.jitter}")
        if self.crop is not None and not 1 <= min(self.crop) <= max(self.crop) <= LARGEST_SIDE:
            raise ValueError(f"augment.crop must be a height and a width of 1 to {LARGEST_SIDE}, got {list(self.crop)}")
        for name, most in STRONGEST.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"augment.{name} must be 0 to {most:g}, got {getattr(self, name)}")

    def resize_and_mirror(
        self, image: np.ndarray, target: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """``[H, W(, C)]`` and ``[(T, )H, W]`` in, the same out."""
        factor = np.exp(random.uniform(*np.log(self.scale)))
        height, width = target.shape[-2:]
        size = (max(1, round(height * factor)), max(1, round(width * factor)))
        image, target = resized_image(image, size), resized_labels(target, size)
        if self.mirror and random.random() < 0.5:
            image, target = image[:, ::-1], target[..., ::-1]
        return np.ascontiguousarray(image), np.ascontiguousarray(target)

    def cut(self, image: Tensor, target: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Preprocessed ``[C, H, W]`` (0 is the mean color) and ``[(T, )H, W]``, shifted, cropped and distorted."""
        if self.jitter:
            down, right = (int(shift) for shift in random.integers(-self.jitter, self.jitter + 1, 2))
            image = F.pad(image, (right, -right, down, -down))
            target = F.pad(target, (right, -right, down, -down), value=VOID)
        (height, width), (rows, columns) = self.crop or target.shape[-2:], target.shape[-2:]
        padding = (0, max(0, width - columns), 0, max(0, height - rows))
        if any(padding):
            image = F.pad(image, padding)
            target = F.pad(target, padding, value=VOID)
        top = int(random.integers(target.shape[-2] - height + 1))
        left = int(random.integers(target.shape[-1] - width + 1))
        window = (slice(top, top + height), slice(left, left + width))
        if self.rotate or self.elastic:
            image, target = warped(image, target, window, self.rotate, self.elastic, random)
        else:
            image, target = image[(..., *window)].contiguous(), target[(..., *window)].contiguous()
        for distort, strength in ((blurred, self.blur), (noisy, self.noise), (relit, self.light)):
            if strength:
                image = distort(image, strength, random)
        return image, target


def to_tensor(target: np.ndarray) -> Tensor:
    """Labels uint8 ``[(T, )H, W]`` as a tensor of its own memory."""
    return torch.from_numpy(np.array(target, dtype=np.uint8))
