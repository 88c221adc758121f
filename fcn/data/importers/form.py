"""What every reader of annotations gives: images, and what is drawn on them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import DataError
from ..color_table import VOID_NAMES
from ..files import VOID
from ..palette import Color, voc_palette

Size = tuple[int, int]
"""Width and height."""
FARTHEST = 1e9
"""Coordinates beyond this are of no image."""
BACKGROUND_NAMES = ("background", "_background_", "__background__", "bg")


@dataclass(frozen=True)
class Polygon:
    """``points`` float64 ``[N, 2]``: x and y in pixels, (0, 0) being the upper left corner of the first pixel; or
    ``relative``, in parts of the image's width and height."""

    label: int
    points: np.ndarray
    relative: bool = False


@dataclass(frozen=True)
class Region:
    """``decode(image size)`` gives a mask, bool ``[h, w]``, whose first pixel lies at column ``left``, row ``top``."""

    label: int
    decode: Callable[[Size], np.ndarray]
    left: int = 0
    top: int = 0


Shape = Polygon | Region


@dataclass
class Item:
    """An image and its labels.

    name: the path of the image below the source, without suffix, by which it is named in what is written.
    image: a file, or what gives pixels ``[H, W(, 3)]`` (pages of stacks, images within annotations).
    annotation: the file that says what is on it, for messages.
    shapes: in the order in which they are painted over background; or ``labels``: what gives labels uint8 ``[H, W]``.
    size: of the image, as the annotation states it.
    split: ``train``, ``val``, ``test`` or, where nothing says, empty.
    """

    name: str
    image: Path | Callable[[], np.ndarray]
    annotation: Path
    shapes: Sequence[Shape] = ()
    labels: Callable[[], np.ndarray] | None = None
    size: Size | None = None
    split: str = ""

    @property
    def where(self) -> str:
        """The annotation, and the image where the file is not called like it."""
        own = self.name.rpartition("/")[2]
        return str(self.annotation) if own == self.annotation.stem else f"{self.annotation}: {own}"


class Remarks:
    """Lines to say at the end: of many of one kind, the first and their number."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, where: str | Path = "") -> None:
        """``what`` is the kind, ``where`` the file and what else is particular."""
        self._found.setdefault(what, []).append(str(where))

    def extend(self, other: Remarks) -> None:
        for what, places in other._found.items():
            self._found.setdefault(what, []).extend(places)

    def lines(self) -> list[str]:
        return [_line(what, places) for what, places in self._found.items()]

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))


def _line(what: str, places: Sequence[str]) -> str:
    more = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return f"{places[0]}: {what}{more}" if places[0] else what


@dataclass
class Annotations:
    """All of a source. ``notes`` say what was understood, ``left_out`` what cannot be used."""

    classes: list[str]
    palette: list[Color]
    items: list[Item] = field(default_factory=list)
    notes: Remarks = field(default_factory=Remarks)
    left_out: Remarks = field(default_factory=Remarks)


class Names:
    """Numbers of classes: background is 0, void 255, others follow in the order of ``names``."""

    def __init__(self, names: Iterable[str], source: Path, colors: Mapping[str, Color] | None = None) -> None:
        names = list(dict.fromkeys(names))
        background = [name for name in names if name.lower() in BACKGROUND_NAMES]
        void = [name for name in names if name.lower().strip("_") in VOID_NAMES]
        others = [name for name in names if name not in background and name not in void]
        if not others:
            raise DataError(f"{source}: no class is named here")
        if len(others) >= VOID:
            raise DataError(f"{source}: {len(others)} classes and background; at most {VOID} are possible")
        self.classes = ["background", *(" ".join(name.split()) for name in others)]
        self._labels = {name: label for label, name in enumerate(others, start=1)}
        self._labels |= dict.fromkeys(background, 0) | dict.fromkeys(void, VOID)
        known = dict(colors or {})
        usual = voc_palette(len(self.classes))
        ground = next((known[name] for name in background if name in known), usual[0])
        self.palette = [ground, *(known.get(name, usual[self._labels[name]]) for name in others)]

    def __getitem__(self, name: str) -> int:
        return self._labels[name]

    def __contains__(self, name: object) -> bool:
        return name in self._labels

    def annotations(self) -> Annotations:
        """Of these classes, with no image yet."""
        return Annotations(self.classes, self.palette)


def points_of(numbers: object) -> np.ndarray:
    """Coordinates in a row, or pairs of them, numbers or texts of numbers, as float64 ``[N, 2]``.

    Raises ``ValueError`` for anything else, for fewer than three points, and for numbers that are not finite or beyond
    all images.
    """
    try:
        values = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("a polygon must be numbers in pairs") from None
    if values.size % 2 or values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 2):
        raise ValueError(f"a polygon must be numbers in pairs, got {values.size} of shape {list(values.shape)}")
    if values.size < 6:
        raise ValueError(f"a polygon must have 3 points or more, got {values.size // 2}")
    if not (abs(values) < FARTHEST).all():
        raise ValueError(f"a polygon has a coordinate that is no number below {FARTHEST:.0e}")
    return values.reshape(-1, 2)


def box_points(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The corners of a rectangle as ``points_of`` gives them."""
    return points_of([[left, top], [right, top], [right, bottom], [left, bottom]])


def ellipse_points(x: float, y: float, radius_x: float, radius_y: float) -> np.ndarray:
    """An ellipse as a polygon that lies within a tenth of a pixel of it, up to radii of 5000 pixels."""
    count = int(np.clip(8 * max(radius_x, radius_y, 1) ** 0.5, 16, 512))
    angles = np.arange(count) * (2 * np.pi / count)
    return points_of(np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1))


def turned(points: np.ndarray, degrees: float, x: float, y: float) -> np.ndarray:
    """``points`` turned clockwise, as seen with y pointing down, around (x, y)."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    result: np.ndarray = (points - (x, y)) @ np.array([[cosine, sine], [-sine, cosine]]) + (x, y)
    return result
