"""Images larger than memory allows: the trunk runs tile by tile, and the scores are those of the whole image.

A tile is read with all pixels that its scores see (the receptive field, from the network's geometry), and tiles begin
at whole strides of every stream, so nothing is blended and no seam is left. What is kept of the whole image are the
scores of each stream, less than one number for each pixel with 21 classes; the maps of the trunk exist for one tile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.preprocessing import Preprocessing
from ..networks.geometry import Layer, coord_map, output_size, receptive_field, total_stride
from ..networks.models import FCN, Trunk
from ..networks.scores import Scores

Progress = Callable[[list["Tile"]], Iterator["Tile"]]


class Unprepared:
    """Images of one size, ``[H, W]`` or ``[H, W, C]`` each, of which every window is preprocessed when it is taken: as
    network input, float32, the whole of a large image would be many times itself."""

    def __init__(self, images: Sequence[np.ndarray], preprocessing: Preprocessing, device: torch.device) -> None:
        self.images, self.preprocessing, self.device = images, preprocessing, device
        self.shape = (len(images), preprocessing.channels, *images[0].shape[:2])

    def __getitem__(self, window: tuple[slice, slice, slice, slice]) -> Tensor:
        """float32 ``[N, C, h, w]``; all images and channels, of the rows and columns that are asked for."""
        _, _, rows, columns = window
        return torch.stack([self.preprocessing(image[rows, columns]) for image in self.images]).to(self.device)


Images = Tensor | Unprepared


class Span:
    """A tile along one axis: the scores that it owns of each stream, and the pixels ``[first, end)`` that they see."""

    def __init__(self, chains: list[tuple[Layer, ...]], size: int, start: int, stop: int) -> None:
        self.owned: list[tuple[int, int]] = []
        step = max(map(total_stride, chains))
        first, end = [start], [min(stop, size)]
        for chain in chains:
            stride = total_stride(chain)
            owned = (start // stride, output_size(chain, size) if stop >= size else stop // stride)
            self.owned.append(owned)
            # Output u of a chain sees the pixels [before + u * stride, before + u * stride + field).
            field = receptive_field(chain)
            before = math.floor(coord_map(chain).shift - (field - 1) / 2)
            first.append(before + owned[0] * stride)
            end.append(before + (owned[1] - 1) * stride + field)
        self.first = max(0, min(first) // step * step)
        self.end = min(size, max(end))


class Tile:
    """The part of an image's scores that one run of the trunk makes; each attribute is for (rows, columns)."""

    def __init__(self, rows: Span, columns: Span) -> None:
        self.spans = (rows, columns)

    def window(self, images: Images) -> Tensor:
        (top, bottom), (left, right) = ((span.first, span.end) for span in self.spans)
        return images[:, :, top:bottom, left:right]


def tiles(model: FCN, size: tuple[int, int], tile: int) -> list[Tile]:
    """Tiles that cover an image of ``size``: ``tile`` pixels a side, up to the next multiple of the coarsest stride."""
    chains = [model.backbone.path(stream.tap) for stream in model.head.streams]
    step = max(map(total_stride, chains))
    length = -(-tile // step) * step
    rows, columns = (
        [Span(chains, pixels, start, start + length) for start in range(0, pixels, length)] for pixels in size
    )
    return [Tile(row, column) for row in rows for column in columns]


@torch.no_grad()
def tiled_scores(
    model: FCN, images: Images, tile: int, trunk: Trunk | None = None, progress: Progress = iter
) -> dict[str, Scores]:
    """What ``model.task_scores(images, trunk)`` gives, but for rounding, with the trunk run on one tile at a time.

    ``tile`` is the side of a tile in pixels, less what it reads beyond (about the receptive field). ``progress`` is
    given the tiles and iterates over them. Raises ``ValueError`` for a tile below one pixel or a network in training
    mode.
    """
    if tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")
    if model.training:
        raise ValueError("tiles are for a network in evaluation mode")
    run: Trunk = trunk or model.backbone
    streams, size = model.head.streams, (images.shape[2], images.shape[3])
    whole: dict[str, Tensor] = {}
    for part in progress(tiles(model, size, tile)):
        maps = run(part.window(images))
        for index, stream in enumerate(streams):
            scores = model.head.score_map(stream, maps[stream.tap])
            if stream.tap not in whole:
                lengths = [output_size(model.backbone.path(stream.tap), pixels) for pixels in size]
                whole[stream.tap] = scores.new_empty((images.shape[0], model.config.classes, *lengths))
            _place(whole[stream.tap], scores, part, index, total_stride(model.backbone.path(stream.tap)))
    return model.by_task(model.head.fuse(whole, size, lambda _, scores: scores))


def _place(whole: Tensor, scores: Tensor, tile: Tile, stream: int, stride: int) -> None:
    """Copies the scores of a stream that the tile owns from those of its window."""
    (top, bottom), (left, right) = (span.owned[stream] for span in tile.spans)
    down, across = (span.first // stride for span in tile.spans)
    whole[:, :, top:bottom, left:right] = scores[:, :, top - down : bottom - down, left - across : right - across]
