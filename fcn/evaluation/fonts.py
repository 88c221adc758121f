"""Names of classes in pictures, in any script: fonts that have their characters, numbers where there is none."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from ..text import shown

LONGEST = 200
"""Names with more characters are cut off in pictures, with an ellipsis."""


def drawable(classes: Sequence[str]) -> list[str]:
    """Each name, or its number where no font on this machine has all of its characters."""
    texts = [shown(name) for name in classes]
    texts = [text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in texts]
    return [text if font_of(text) is not None else str(index) for index, text in enumerate(texts)]


@functools.lru_cache(maxsize=4096)
def font_of(text: str) -> Path | None:
    """A font with every character of ``text``: DejaVu Sans, which comes with matplotlib, or one of the system's."""
    wanted = {ord(char) for char in text if not char.isspace() and unicodedata.category(char) != "Cf"}
    if wanted <= _characters(usual_font()):
        return usual_font()
    return next((path for path in _system_fonts() if wanted <= _characters(path)), None)


def families(texts: Sequence[str]) -> list[str]:
    """Names of these texts' fonts, for matplotlib, which takes each character from the first that has it."""
    from matplotlib.font_manager import FontProperties, fontManager

    found = dict.fromkeys(path for text in texts if (path := font_of(text)) is not None)
    for path in found:
        fontManager.addfont(path)
    return ["DejaVu Sans", *(FontProperties(fname=path).get_name() for path in found if path != usual_font())]


@functools.cache
def usual_font() -> Path:
    """DejaVu Sans: Latin, Greek, Cyrillic, Arabic, Hebrew and more."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@functools.cache
def _system_fonts() -> list[Path]:
    from matplotlib.font_manager import findSystemFonts

    return sorted(map(Path, findSystemFonts()))


@functools.lru_cache(maxsize=64)
def _characters(path: Path) -> frozenset[int]:
    """Nothing for a font that cannot be drawn with."""
    from matplotlib.ft2font import FT2Font
    from PIL import ImageFont

    try:
        ImageFont.truetype(path, 14)
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
