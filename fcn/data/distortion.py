"""Distorted views of preprocessed images, by ``scipy.ndimage``: turned, bent, blurred, noisy, in other light."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .files import VOID

SPACING = 128
"""Pixels between the points of an elastic grid, at most."""


def warped(
    image: Tensor,
    target: Tensor,
    window: tuple[slice, slice],
    rotate: float,
    elastic: float,
    random: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """The ``window`` of an image ``[C, H, W]`` and its labels ``[(T, )H, W]``, turned about its center by up to
    ``rotate`` degrees and bent: displacements with a deviation of ``elastic`` pixels on a coarse grid, smooth in
    between (Ronneberger, Fischer, Brox 2015, section 3.1). Beyond the image: 0 and void."""
    from scipy.ndimage import map_coordinates

    rows, columns = (np.arange(side.start, side.stop, dtype=np.float64) for side in window)
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    if rotate:
        angle = math.radians(random.uniform(-rotate, rotate))
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        center = points.mean((1, 2), keepdims=True)
        points = np.einsum("ij,jhw->ihw", turn, points - center) + center
    if elastic:
        points = points + _displacements(len(rows), len(columns), elastic, random)

    def sampled(planes: Tensor, order: int, outside: float) -> Tensor:
        """``order`` 1 interpolates, 0 takes the nearest."""
        flat = planes.reshape(-1, *planes.shape[-2:]).numpy()
        found = np.stack([map_coordinates(each, points, each.dtype, order=order, cval=outside) for each in flat])
        return torch.from_numpy(found.reshape(*planes.shape[:-2], *points.shape[1:]))

    return sampled(image, 1, 0.0), sampled(target, 0, VOID)


def _displacements(height: int, width: int, deviation: float, random: np.random.Generator) -> np.ndarray:
    """``[2, height, width]`` pixels: random on a grid of at least 3 x 3 points, cubic in between."""
    from scipy.ndimage import map_coordinates

    counts = [max(3, 1 + math.ceil(side / SPACING)) for side in (height, width)]
    grid = random.normal(0.0, deviation, (2, *counts))
    between = [np.linspace(0, count - 1, side) for count, side in zip(counts, (height, width), strict=True)]
    points = np.meshgrid(*between, indexing="ij")
    return np.stack([map_coordinates(plane, points, order=3, mode="nearest") for plane in grid])


def blurred(image: Tensor, blur: float, random: np.random.Generator) -> Tensor:
    """Each channel of ``[C, H, W]`` under a Gaussian whose deviation is up to ``blur`` pixels."""
    from scipy.ndimage import gaussian_filter

    deviation = random.uniform(0, blur)
    return torch.from_numpy(gaussian_filter(image.numpy(), deviation, axes=(1, 2)))


def noisy(image: Tensor, noise: float, random: np.random.Generator) -> Tensor:
    """Gaussian noise on ``[C, H, W]``, up to ``noise`` of each channel's own deviation."""
    strength = random.uniform(0, noise) * image.std((1, 2), correction=0, keepdim=True)
    return image + strength * torch.from_numpy(random.standard_normal(image.shape, dtype=np.float32))


def relit(image: Tensor, light: float, random: np.random.Generator) -> Tensor:
    """``[C, H, W]`` with more or less contrast, brightness and tint: by a part ``light`` of each channel's deviation,
    at most, for all channels, and by half as much again for each of them."""
    mean, deviation = image.mean((1, 2), keepdim=True), image.std((1, 2), correction=0, keepdim=True)
    contrast = 1 + random.uniform(-light, light)
    shift = random.uniform(-light, light) + 0.5 * random.uniform(-light, light, (len(image), 1, 1))
    return (image - mean) * contrast + mean + deviation * torch.from_numpy(np.float32(shift))
