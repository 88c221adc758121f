"""Colors of classes."""

from __future__ import annotations

Color = tuple[int, int, int]


def voc_palette(classes: int) -> list[Color]:
    """The PASCAL VOC color map: bits 0, 1, 2 of the label go to the top bits of red, green, blue, then the next three."""
    colors = []
    for label in range(classes):
        red = green = blue = 0
        for shift in range(7, -1, -1):
            red |= (label & 1) << shift
            green |= (label >> 1 & 1) << shift
            blue |= (label >> 2 & 1) << shift
            label >>= 3
        colors.append((red, green, blue))
    return colors
