"""Colors of classes."""

from __future__ import annotations

Color = tuple[int, int, int]


def voc_palette(classes: int) -> list[Color]:
    """The PASCAL VOC color map: label bits 0, 1, 2 are the top bits of red, green, blue, and so on."""
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
