"""Labels of an image from the shapes on it."""

from __future__ import annotations

import numpy as np

from .form import Item, Polygon, Remarks, Size

CROSSINGS = 1 << 22
"""So many crossings of edges and rows are held at a time, whatever a polygon has."""


def paint(item: Item, size: Size, remarks: Remarks) -> np.ndarray:
    """Labels uint8 ``[H, W]``: background 0, and over it the shapes in their order: of two that overlap, the later.

    Pixels belong to a shape whose center lies within it. ``remarks`` take what was cut off, and what left no trace.
    Raises ``ValueError`` for a mask that does not fit the image.
    """
    width, height = size
    labels = np.zeros((height, width), np.uint8)
    for shape in item.shapes:
        if isinstance(shape, Polygon):
            points = shape.points * size if shape.relative else shape.points
            low, high = points.min(0), points.max(0)
            if (low < -1).any() or (high > (width + 1, height + 1)).any():
                remarks.add("a polygon reaches beyond its image and is cut off there", item.where)
            left, top, mask = filled(points, size)
        else:
            mask = shape.decode(size)
            left, top = shape.left, shape.top
            if left < 0 or top < 0 or left + mask.shape[1] > width or top + mask.shape[0] > height:
                own = f"{mask.shape[1]}x{mask.shape[0]} at {left}, {top}"
                raise ValueError(f"a mask of {own} does not fit its image, {width}x{height}")
        if not mask.any():
            remarks.add("a shape covers the center of no pixel of its image, and leaves no trace", item.where)
            continue
        labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = shape.label
    return labels


def filled(points: np.ndarray, size: Size) -> tuple[int, int, np.ndarray]:
    """Left, top, and a mask, bool ``[h, w]``, of the pixels whose centers lie within a polygon, float64 ``[N, 2]``, by
    the even-odd rule.

    Pillow's polygons grow by half a pixel on every side, since it draws their outline too; here polygons that share
    an edge share no pixel, and leave none out.
    """
    (left, top), (right, bottom) = (
        np.clip(np.ceil(end - 0.5), 0, size).astype(np.int64) for end in (points.min(0), points.max(0))
    )
    if right <= left or bottom <= top:
        return 0, 0, np.zeros((0, 0), bool)
    crossings = np.zeros((bottom - top, right - left + 1), np.uint8)
    ends = np.roll(points, -1, axis=0)
    step = max(1, CROSSINGS // int(bottom - top))
    for start in range(0, len(points), step):
        (ax, ay), (bx, by) = points[start : start + step].T, ends[start : start + step].T
        first = np.clip(np.ceil(np.minimum(ay, by) - 0.5), top, bottom).astype(np.int64)
        count = np.clip(np.ceil(np.maximum(ay, by) - 0.5), top, bottom).astype(np.int64) - first
        edge = np.repeat(np.arange(len(count)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        along = (row + 0.5 - ay[edge]) / (by - ay)[edge]
        x = ax[edge] + along * (bx - ax)[edge]
        column = np.clip(np.ceil(x - 0.5), left, right).astype(np.int64)
        np.add.at(crossings, (row - top, column - left), 1)  # wraps at 256, which keeps odd and even
    inside = np.cumsum(crossings[:, :-1], axis=1, dtype=np.uint8) & 1
    return int(left), int(top), inside.astype(bool)
