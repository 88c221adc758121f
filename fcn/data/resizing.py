"""Images and label maps at another size."""

from __future__ import annotations

import numpy as np
from PIL import Image

Size = tuple[int, int]
"""(height, width)."""


def reduced_size(size: Size, longest_side: int | None) -> Size:
    """``size``, or where its longer side is above ``longest_side`` that side and the other in proportion."""
    longer = max(size)
    if longest_side is None or longer <= longest_side:
        return size
    height, width = (max(1, round(side * longest_side / longer)) for side in size)
    return height, width


def resized_image(image: np.ndarray, size: Size) -> np.ndarray:
    """``[H, W(, C)]`` of uint8, uint16 or float32: interpolated, or where it becomes smaller averaged."""
    return image if image.shape[:2] == size else _resized(image, size, Image.Resampling.BILINEAR, axis=2)


def resized_labels(labels: np.ndarray, size: Size) -> np.ndarray:
    """``[(T, )H, W]``: the nearest pixel's."""
    return labels if labels.shape[-2:] == size else _resized(labels, size, Image.Resampling.NEAREST, axis=0)


def _resized(array: np.ndarray, size: Size, resampling: Image.Resampling, axis: int) -> np.ndarray:
    """``[H, W]``, or planes of it along ``axis``."""
    if array.ndim == 3:
        return np.stack([_resized(plane, size, resampling, axis) for plane in np.moveaxis(array, axis, 0)], axis)
    return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize(size[::-1], resampling))
