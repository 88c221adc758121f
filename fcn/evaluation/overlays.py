"""Labels as colors, over their image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..data import VOID, Color
from ..data.files import write_image
from .fonts import drawable
from .legend import legend, stacked

LARGEST = 1 << 24
"""Pixels of an overlay. Larger images are reduced by a whole number: an overlay is for the eye."""
BAND = 1 << 20
"""Pixels that are mixed at a time."""


def colorize(labels: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Labels ``[H, W]`` as uint8 ``[H, W, 3]``; void is white."""
    table = np.full((max(VOID + 1, len(palette)), 3), 255, dtype=np.uint8)
    table[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    colors: np.ndarray = table[labels]
    return colors


def blend(image: np.ndarray, labels: np.ndarray, palette: Sequence[Color], opacity: float = 0.55) -> np.ndarray:
    """Label colors over a uint8 image ``[H, W]`` or ``[H, W, 3 | 4]``. uint8 ``[H, W, 3]``.

    Void stays clear, and so does what is black, as backgrounds are: it would only be darker."""
    rgb = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image[:, :, :3]
    colors = colorize(labels, palette)
    mixed = (1 - opacity) * rgb + opacity * colors
    void = (labels == VOID) & (len(palette) <= VOID)  # of more classes, 255 is one
    clear = void | ~colors.any(axis=2)
    return np.where(clear[:, :, None], rgb, np.rint(mixed).astype(np.uint8))


def save_overlay(
    path: str | Path, image: np.ndarray, labels: np.ndarray, classes: Sequence[str], palette: Sequence[Color]
) -> None:
    """A PNG of the overlay at the image's size (above ``LARGEST`` pixels: reduced), with a legend of the classes that
    occur below it."""
    found: set[int] = set()
    for _, own in _bands(image, labels, 1):  # of all at once NumPy makes copies of 8 bytes a pixel
        found.update(np.unique(own).tolist())
    present = [index for index in range(len(classes)) if index in found]
    names, step = drawable(classes), _step(labels.size)
    width = -(-labels.shape[1] // step)
    below = legend([names[index] for index in present], [palette[index] for index in present], width)
    rows = [blend(*part, palette) for part in _bands(image, labels, step)]
    write_image(path, Image.fromarray(stacked([*rows, below])), optimize=False)


def _step(pixels: int) -> int:
    return next(step for step in range(1, pixels + 2) if pixels <= LARGEST * step * step)


def _bands(image: np.ndarray, labels: np.ndarray, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of image and labels, every ``step``-th pixel of which is kept: means of the image, labels as they are."""
    rows = step * max(1, BAND // (step * labels.shape[1]))
    for top in range(0, len(labels), rows):
        part, own = image[top : top + rows], labels[top : top + rows]
        if step > 1:
            part, own = np.asarray(Image.fromarray(part).reduce(step)), own[::step, ::step]
        yield part, own
