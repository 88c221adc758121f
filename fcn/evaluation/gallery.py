"""A page of images with their labels over them and the legend of classes: what a data set looks like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data import Color, SegmentationDataset
from ..data.files import eight_bits, write_image
from ..text import shown
from .fonts import drawable, font_of, usual_font
from .legend import GAP, INK, LINE, legend, stacked
from .overlays import blend

TILE = (320, 240)
"""Width and height that an image is fitted into."""
COLUMNS = 4


def save_gallery(path: str | Path, datasets: Sequence[tuple[str, SegmentationDataset]], count: int = 12) -> int:
    """A PNG of ``count`` images, spread over data sets (each with the name of its split), with the labels of each task.

    Returns how many there are. Raises ``DataError`` for files that cannot be read.
    """
    total = sum(len(dataset) for _, dataset in datasets)
    chosen = {index * total // min(count, total) for index in range(min(count, total))}
    pictures: list[np.ndarray] = []
    for task, first in datasets[0][1].tasks.items():
        tiles, start = [], 0
        for split, dataset in datasets:
            part = dataset.tasks[task]
            for index in range(len(part)):
                if start + index in chosen:
                    sample = part[index]
                    name = f"{split}: {sample['name']}" if split else sample["name"]
                    tiles.append(_tile(sample["image"], sample["target"], first.palette, name))
            start += len(part)
        pictures += _rows(tiles)
        pictures.append(legend(drawable(first.classes), first.palette, COLUMNS * (TILE[0] + GAP)))
    write_image(path, Image.fromarray(stacked(pictures)), optimize=False)
    return len(chosen)


def _tile(image: np.ndarray, labels: np.ndarray, palette: Sequence[Color], name: str) -> np.ndarray:
    """uint8 ``[TILE height + LINE, TILE width + GAP, 3]``."""
    if image.dtype == np.uint16:
        image = eight_bits(image, (float(image.min()), max(float(image.max()), float(image.min()) + 1)))
    image = image[:, :, :3].astype(np.uint8, copy=False) if image.ndim == 3 else image
    height, width = labels.shape
    scale = min(TILE[0] / width, TILE[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = np.asarray(Image.fromarray(image).convert("RGB").resize(size, Image.Resampling.BOX))
    own = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    tile = Image.new("RGB", (TILE[0] + GAP, TILE[1] + LINE), "white")
    tile.paste(Image.fromarray(blend(pixels, own, palette)), (0, 0))
    text = shown(name)
    text = text if len(text) <= 42 else f"{text[:41]}…"
    font = ImageFont.truetype(font_of(text) or usual_font(), 12)
    ImageDraw.Draw(tile).text((0, size[1] + LINE // 2), text, INK, font, anchor="lm")
    return np.asarray(tile)


def _rows(tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate(tiles[start : start + COLUMNS], axis=1) for start in range(0, len(tiles), COLUMNS)]
