"""Legends: a strip of colors and names that has room for all of them, whatever their number and length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data import Color
from .fonts import font_of, usual_font

SIZE, GAP, LINE = 14, 8, 20
INK = (51, 51, 51)
NARROWEST = 320


def legend(names: Sequence[str], palette: Sequence[Color], width: int) -> np.ndarray:
    """uint8 ``[h, w, 3]`` on white, ``w`` the ``width`` or somewhat more, with a line for as many names as fit in it.

    ``names`` are of ``fonts.drawable``. Names longer than a line are broken. Without names, ``h`` is 0.
    """
    width = max(width, NARROWEST)
    entries, x, y, height = [], GAP, GAP // 2, 0
    for name, color in zip(names, palette, strict=True):
        font = ImageFont.truetype(font_of(name) or usual_font(), SIZE)
        lines = _broken(name, font, width - 4 * GAP - SIZE)
        wide = SIZE + GAP + int(max(map(font.getlength, lines), default=0)) + 2 * GAP
        if x > GAP and x + wide > width:
            x, y, height = GAP, y + height, 0
        entries.append((x, y, lines, font, color))
        x, height = x + wide, max(height, LINE * len(lines))
    picture = Image.new("RGB", (width, y + height + GAP // 2 if entries else 0), "white")
    draw = ImageDraw.Draw(picture)
    for x, y, lines, font, color in entries:
        draw.rectangle((x, y + 2, x + SIZE, y + 2 + SIZE), fill=color, outline=(136, 136, 136))
        for number, line in enumerate(lines):
            draw.text((x + SIZE + GAP, y + number * LINE + LINE // 2), line, INK, font, anchor="lm")
    return np.asarray(picture)


def stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 ``[h, w, 3]`` pictures below each other, on white."""
    whole = np.full((sum(map(len, pictures)), max(picture.shape[1] for picture in pictures), 3), 255, np.uint8)
    row = 0
    for picture in pictures:
        whole[row : row + len(picture), : picture.shape[1]] = picture
        row += len(picture)
    return whole


def _broken(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines of at most ``width`` pixels: after a space where there is one, else anywhere."""
    lines = []
    while font.getlength(text) > width:
        end = next(end for end in range(len(text), 0, -1) if end == 1 or font.getlength(text[:end]) <= width)
        space = text.rfind(" ", 1, end)
        end = space + 1 if space > 0 else end
        lines.append(text[:end].rstrip())
        text = text[end:]
    return [*lines, text] if text or not lines else lines
