"""Channels beside the colors of an image: depth, or HHA (horizontal disparity, height and angle; Gupta et al. 2014)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ..errors import DataError
from .files import ImageLike, eight_bits, to_array
from .listing import files_in
from .opening import Opened
from .preprocessing import rgb

Further = Literal["depth", "hha"]

FURTHER: dict[int, Further] = {4: "depth", 6: "hha"}
"""What an image has beside its colors, by the number of its channels."""
LOG_DEPTH_MEAN = 7.844
"""Of the FCN authors' network for NYUDv2."""


def joined(color: ImageLike, further: ImageLike, kind: Further) -> np.ndarray:
    """Color and the logarithm of the depth, float32 ``[H, W, 4]``; color and HHA, uint8 ``[H, W, 6]``.

    Depth is 16-bit millimeters. Raises ``DataError`` naming a file that cannot be read, and where sizes differ.
    """
    colors = eight_bits(rgb(to_array(color)))
    channels = log_depth(further)[:, :, None] if kind == "depth" else eight_bits(rgb(to_array(further)))
    if channels.shape[:2] != colors.shape[:2]:
        name = further if isinstance(further, (str, Path)) else kind
        raise DataError(
            f"{name}: {channels.shape[1]}x{channels.shape[0]}, and the image beside it is "
            f"{colors.shape[1]}x{colors.shape[0]} (width x height): sizes must be equal"
        )
    return np.concatenate((colors, channels), axis=2)


def log_depth(depth: ImageLike) -> np.ndarray:
    """float32 ``[H, W]``: the logarithm of 16-bit millimeters; where there is no depth (0), the published mean."""
    if isinstance(depth, (str, Path)):
        with Opened(depth, "depth") as image:
            return _log(image, str(depth))
    return _log(depth, "depth")


def _log(depth: Image.Image | np.ndarray, name: str) -> np.ndarray:
    stored = np.asarray(depth)
    stored = stored[:, :, 0] if stored.ndim == 3 and stored.shape[2] == 1 else stored
    if stored.ndim != 2 or stored.dtype.kind not in "iu" or stored.dtype.itemsize == 1:
        raise DataError(
            f"{name}: depth must be 16-bit millimeters in one channel, got {stored.dtype} of shape {stored.shape}"
        )
    millimeters = stored.astype(np.float32)
    return np.log(millimeters, where=millimeters > 0, out=np.full(stored.shape, LOG_DEPTH_MEAN, np.float32))


class FurtherFolder:
    """A folder of depth or HHA images, each of the same stem as the image that it belongs to."""

    def __init__(self, folder: Path, kind: Further) -> None:
        self.folder, self.kind, self.files = folder, kind, files_in(folder)

    def joined_to(self, image: np.ndarray, name: str) -> np.ndarray:
        """``joined``. Raises ``DataError`` for an image without partner too."""
        if name not in self.files:
            raise DataError(f"{self.folder}: {self.kind} of '{name}' is missing (same stem wanted)")
        return joined(image, self.files[name], self.kind)
