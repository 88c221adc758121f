"""From the maps of a trunk to coarse scores: 1x1 convolutions and sums of upsampled scores (CVPR 2015, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcn_kernels import BilinearGrid, CoordMap, bilinear_kernel, conv_transpose_add, upsample_add
from fcn_kernels.grid import Border

from .geometry import Upsampling
from .scores import Scores

Filter = Literal["fixed", "diagonal", "dense"]


@dataclass(frozen=True)
class Stream:
    """A map of the trunk that is scored."""

    tap: str
    """The layer whose output it is."""
    score: str
    """Name of the layer that scores it."""
    channels: int
    position: CoordMap
    """From an index of the map to the image coordinate that it is centered on."""
    scale: float = 1.0
    """Its maps are multiplied by this."""


class Upsample(nn.Module):
    """Upsampling onto the samples of a skip or of the image, plus the skip.

    ``"fixed"`` is bilinear and has no parameters; ``"diagonal"`` learns a filter ``[classes, 1, k, k]`` and ``"dense"``
    one from each class to each, ``[classes, classes, k, k]``, as stored in Caffe's files. Both start as bilinear.
    """

    def __init__(self, geometry: Upsampling, filter: Filter) -> None:
        super().__init__()
        self.geometry, self.filter = geometry, filter
        if filter != "fixed":
            classes, kernel = geometry.layer.channels, bilinear_kernel(geometry.layer.kernel_size)
            diagonal = torch.ones(classes, 1) if filter == "diagonal" else torch.eye(classes)
            self.weight = nn.Parameter(diagonal[:, :, None, None] * kernel)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """``[N, classes, h, w]`` to ``[N, classes, *size]``, the size of ``skip`` if there is one."""
        if self.filter == "fixed":
            return upsample_add(x, skip, grid=self.geometry.grid(size))
        stride, crop = self.geometry.layer.stride, self.geometry.crop
        if self.geometry.border == "clamp":
            # A row and a column more on every side: what a transposed convolution sees past the border.
            x = F.pad(x, (1, 1, 1, 1), mode="replicate")
            crop += stride
        weight = self.weight.to(x.dtype)  # Under autocast x is half precision where the filter is not.
        if self.filter == "diagonal":
            return conv_transpose_add(
                x, weight, skip, stride=stride, crop=crop, size=None if skip is not None else size
            )
        upsampled = F.conv_transpose2d(x, weight, stride=stride)
        upsampled = upsampled[:, :, crop : crop + size[0], crop : crop + size[1]]
        return upsampled if skip is None else upsampled + skip


class Head(nn.Module):
    """A 1x1 scoring convolution for each stream, and sums of upsampled scores from the coarsest stream to the finest.

    Scoring layers start at zero (the paper found no gain in random values), so a new skip does not change predictions.
    ``border="zeros"``: scores fade out at the borders of the maps as in the published transposed convolutions, exactly;
    ``"clamp"``: not. ``upsampling`` is the filter between streams: learning it makes no difference (the authors' FAQ).
    With a learned ``last_upsampling`` scores of full resolution are made; dense, before they are cropped to the image.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        stride: int,
        classes: int,
        border: Border,
        upsampling: Filter = "fixed",
        last_upsampling: Filter = "fixed",
    ) -> None:
        super().__init__()
        self.streams = tuple(streams)
        for stream in streams:
            score = nn.Conv2d(stream.channels, classes, 1)
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]
            self.add_module(stream.score, score)
        deepest, *skips = streams
        position, name = deepest.position, "upscore2"
        self.fusions: list[str] = []
        for skip in skips:
            step = Upsampling.onto(name, classes, position, skip.position, border)
            self.add_module(name, Upsample(step, upsampling))
            self.fusions.append(name)
            position, name = step.coord_map, skip.score.replace("score", "upscore", 1)
        self.last = "upscore" if stride == 32 else f"upscore{stride}"
        step = Upsampling.onto(self.last, classes, position, CoordMap(), border)
        self.add_module(self.last, Upsample(step, last_upsampling))

    def score(self, stream: Stream) -> nn.Conv2d:
        return cast(nn.Conv2d, self.get_submodule(stream.score))

    def upsample(self, name: str) -> Upsample:
        """The upsampling ``name``: one of ``fusions``, or ``last``."""
        return cast(Upsample, self.get_submodule(name))

    def covers(self, lengths: Sequence[int], size: int) -> bool:
        """Whether streams of these lengths give scores for every pixel of an image of length ``size``.

        A fixed filter that clamps has them past the last cell too.
        """
        length = lengths[0]
        for name, fine in zip(self.fusions, lengths[1:], strict=True):
            length = self.upsample(name).geometry.overlap(length, fine)
        last = self.upsample(self.last)
        clamps = last.filter == "fixed" and last.geometry.border == "clamp"
        return length > 0 and (clamps or last.geometry.overlap(length, size) == size)

    def score_map(self, stream: Stream, x: Tensor) -> Tensor:
        """Scores ``[N, classes, h, w]`` of a stream's map, or of a part of it."""
        return cast(Tensor, self.score(stream)(x if stream.scale == 1 else x * stream.scale))

    def forward(self, maps: Mapping[str, Tensor], size: tuple[int, int]) -> Scores:
        """Scores of an image of ``size`` from ``{tap: [N, channels, h, w]}``."""
        return self.fuse(maps, size, self.score_map)

    def fuse(
        self, maps: Mapping[str, Tensor], size: tuple[int, int], score: Callable[[Stream, Tensor], Tensor]
    ) -> Scores:
        """Scores of an image of ``size`` from maps that ``score`` turns into scores of their stream."""
        deepest, *skips = self.streams
        coarse = score(deepest, maps[deepest.tap])
        for name, skip in zip(self.fusions, skips, strict=True):
            upsample, x = self.upsample(name), maps[skip.tap]
            step = upsample.geometry
            height, width = (step.overlap(coarse.shape[axis], x.shape[axis]) for axis in (2, 3))
            # Cropping before the 1x1 convolution gives what the published order gives, for less work.
            x = x[:, :, step.skip_crop : step.skip_crop + height, step.skip_crop : step.skip_crop + width]
            coarse = upsample(coarse, score(skip, x), (height, width))
        last = self.upsample(self.last)
        if last.filter == "fixed":
            return Scores(coarse, last.geometry.grid(size))
        return Scores(last(coarse, None, size), BilinearGrid.interpolate(size, size))
