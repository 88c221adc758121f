"""The plain folder form: images as they are, masks as palette PNGs, and the names of classes."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...errors import ConfigError, DataError
from ...files import replacing, write_text
from ..dataset import sizes_differ
from ..files import VOID, read_image
from ..labels import write_labels
from ..listing import Pair
from ..opening import orientation
from ..palette import Color
from .form import Annotations, Item, Remarks
from .painting import paint


@dataclass
class Written:
    """pairs: of images and masks, by split (empty: none). pixels, images: of each class ``[C]``; void: pixels."""

    pixels: np.ndarray
    images: np.ndarray
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    void: int = 0


def check_out(out: Path, source: Path) -> None:
    """Raises ``ConfigError`` for a folder that holds anything already, or that lies in the source."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: there is something already; give a new folder")
    if out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{out}: lies in {source}, which is read; give a folder elsewhere")


def write(annotations: Annotations, out: Path, splits: bool = True, progress: bool = False) -> Written:
    """``out/<split>/images`` and ``masks``, or without splits ``out/images`` and ``masks``, and ``out/classes.txt``.

    An image that cannot be used goes to ``annotations.left_out``; raises ``DataError`` where no image can.
    """
    items = _with_splits(annotations) if splits else annotations.items
    used = {item.split for item in items} if splits else {""}
    if len(used) == 1:
        if used != {""}:
            annotations.notes.add(f"all images are of the split {used.pop()}; it is left to training to divide them")
        used = {""}
    count = len(annotations.classes)
    result = Written(np.zeros(count, np.int64), np.zeros(count, np.int64))
    names = _names(items, used)
    of_split = [item.split if len(used) > 1 else "" for item in items]
    # Threads: decoding and writing, which is most of the work, does not hold Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda *each: _write_item(annotations.palette, out, *each), items, of_split, names)
        bar = tqdm(done, desc="import", total=len(items), unit="image", disable=not progress, dynamic_ncols=True)
        for item, split, found in zip(items, of_split, bar, strict=True):
            if isinstance(found, str):
                annotations.left_out.add(found, "" if str(item.annotation) in found else item.where)
                continue
            pair, pixels, remarks = found
            annotations.notes.extend(remarks)
            result.pairs.setdefault(split, []).append(pair)
            result.pixels += pixels[:count]
            result.images += pixels[:count] > 0
            result.void += int(pixels[VOID])
    if not result.pairs:
        raise DataError(annotations.left_out.lines()[0])
    if (result.images > 0).sum() == 1:
        annotations.notes.add(
            f"one class only ({annotations.classes[int(result.images.argmax())]}): nothing to learn here"
        )
    absent = [name for name, images in zip(annotations.classes, result.images, strict=True) if not images]
    if absent:
        annotations.notes.add(f"{len(absent)} of {count} classes are on no image: {', '.join(absent)}")
    colors = zip(annotations.classes, annotations.palette, strict=True)
    lines = [f"{name} #{red:02x}{green:02x}{blue:02x}" for name, (red, green, blue) in colors]
    write_text(out / "classes.txt", "\n".join(lines) + "\n")
    return result


def _with_splits(annotations: Annotations) -> list[Item]:
    """Where some images are of a split, those alone."""
    if not any(item.split for item in annotations.items):
        return annotations.items
    for item in annotations.items:
        if not item.split:
            annotations.left_out.add("of no split, while others are; left out (--split none takes all)", item.name)
    return [item for item in annotations.items if item.split]


def _names(items: Iterable[Item], splits: set[str]) -> list[str]:
    """Names of files: the last part of an item's name, or all parts where two would be the same in a split."""
    keys = [(item.split if len(splits) > 1 else "", PurePosixPath(item.name)) for item in items]
    short = Counter((split, name.name.lower()) for split, name in keys)
    if max(short.values()) == 1:
        return [name.name for _, name in keys]
    long = ["_".join(name.parts) for _, name in keys]
    twice = [name for name, count in Counter(name.lower() for name in long).items() if count > 1]
    if twice:
        raise DataError(f"two images would be called {twice[0]}; rename one")
    return long


def _write_item(
    palette: list[Color], out: Path, item: Item, split: str, name: str
) -> tuple[Pair, np.ndarray, Remarks] | str:
    """The files that are written, pixels by label ``[256]``, and what is to say; or why the item cannot be used."""
    remarks = Remarks()
    try:
        image, labels = _labeled(item, remarks)
    except ValueError as error:
        return str(error)
    images, mask = out / split / "images", out / split / "masks" / f"{name}.png"
    if isinstance(item.image, Path):
        path = images / f"{name}{item.image.suffix.lower()}"
        with replacing(path) as partial:
            shutil.copyfile(item.image, partial)
    else:
        path = images / f"{name}.png"
        gray = image.dtype == np.uint16  # of equal channels
        with replacing(path) as partial:  # without the mark of results, which prediction leaves out
            Image.fromarray(np.ascontiguousarray(image[:, :, 0] if gray else image)).save(partial, format="PNG")
    write_labels(mask, labels, palette)
    return (path, mask), np.bincount(labels.ravel(), minlength=VOID + 1), remarks


def _labeled(item: Item, remarks: Remarks) -> tuple[np.ndarray, np.ndarray]:
    """Pixels ``[H, W, 3]`` and labels uint8 ``[H, W]``. Raises ``ValueError``."""
    pixels = read_image(item.image) if isinstance(item.image, Path) else item.image()
    height, width = pixels.shape[:2]
    if item.size is not None and tuple(item.size) != (width, height):
        turned = isinstance(item.image, Path) and tuple(item.size) == (height, width) and orientation(item.image) >= 5
        raise ValueError(
            f"the annotation is for {item.size[0]}x{item.size[1]} pixels, and the image is {width}x{height}"
            + (", turned by its EXIF orientation, as viewers do" if turned else "")
        )
    labels = paint(item, (width, height), remarks) if item.labels is None else item.labels()
    if labels.shape != (height, width):
        if isinstance(item.image, Path):
            raise ValueError(sizes_differ((item.image, item.annotation), pixels, labels))
        raise ValueError(f"the mask is {labels.shape[1]}x{labels.shape[0]}, and the image is {width}x{height}")
    return pixels, labels
