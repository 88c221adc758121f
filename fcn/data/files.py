"""Images as arrays, and files of them; every error names the file."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import DataError
from ..files import replacing
from .opening import Opened, upright

VOID = 255
ImageLike = str | Path | Image.Image | np.ndarray
Levels = tuple[float, float]
RESULT_MARK = b"Software\0fcn predict"
"""In the first bytes of every PNG that this program writes, so that its results are told from a user's files."""


def checked_pixels(image: np.ndarray, name: str = "image") -> np.ndarray:
    """``[H, W]`` or ``[H, W, 1 | 3 | 4]`` of uint8, uint16 or bool as ``[H, W]``, ``[H, W, 3]`` or ``[H, W, 4]`` of
    uint8 (bool: 0 and 255) or uint16.

    Raises ``DataError`` for any other shape or dtype.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)) or image.size == 0:
        raise DataError(f"{name}: an image must be [H, W] or [H, W, 1, 3 or 4] and not empty, got shape {image.shape}")
    if image.dtype not in (np.bool_, np.uint8, np.uint16):
        raise DataError(f"{name}: an image must be uint8 or uint16, got {image.dtype}")
    return image.astype(np.uint8) * np.uint8(255) if image.dtype == np.bool_ else image


def eight_bits(image: np.ndarray, levels: Levels | None = None) -> np.ndarray:
    """uint8 as it is; uint16 scaled so that ``levels`` become 0 and 255 (default: 0 and 65535), rounded and cut off."""
    if image.dtype != np.uint16:
        return image
    if levels is None:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    rounded: np.ndarray = np.rint(at_levels(image, levels).clip(0, 255)).astype(np.uint8)
    return rounded


def at_levels(image: np.ndarray, levels: Levels) -> np.ndarray:
    """float32: ``levels`` become 0 and 255, and values beyond them what they then are."""
    low, high = levels
    values: np.ndarray = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    return values


def pil_to_array(image: Image.Image, name: str = "image") -> np.ndarray:
    """A PIL image of any mode, turned as its EXIF orientation says, as ``[H, W, 3]``: uint8, transparency dropped, or
    of 16-bit gray uint16."""
    image = upright(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{name}: values from {values.min()} to {values.max()}; 8 or 16 bits are wanted")
        gray = checked_pixels(values.astype(np.uint16), name)
        return np.broadcast_to(gray[:, :, None], (*gray.shape, 3))
    if image.mode == "F":
        raise DataError(f"{name}: float pixels; 8 or 16 bits are wanted")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_image(path: str | Path, content: BinaryIO | None = None) -> np.ndarray:
    """uint8 ``[H, W, 3]``, of 16-bit gray uint16, turned as its EXIF orientation says.

    With ``content``, a stranger's file that is called ``path``: of ``OFFERED_FORMATS`` alone. Raises ``DataError``
    naming the file if it is missing, truncated, not an image, or a stack of several pages; ``TooLargeError`` for more
    pixels than are allowed.
    """
    with Opened(path, "image", content) as image:
        return pil_to_array(image, str(path))


def to_array(image: ImageLike) -> np.ndarray:
    """An image in any of the accepted forms as uint8 or uint16 ``[H, W]``, ``[H, W, 3]`` or ``[H, W, 4]``."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    return pil_to_array(image) if isinstance(image, Image.Image) else checked_pixels(np.asarray(image))


def write_image(path: str | Path, image: Image.Image, optimize: bool = True) -> None:
    """Write a PNG, whole or not at all; with ``optimize`` smaller, and more slowly."""
    with replacing(path) as partial:
        save_png(partial, image, optimize=optimize)


def save_png(file: Path | BinaryIO, image: Image.Image, **options: int) -> None:
    """A PNG with ``RESULT_MARK``; ``options`` are Pillow's (``optimize``, ``compress_level``)."""
    mark = PngInfo()
    key, value = RESULT_MARK.decode().split("\0")
    mark.add_text(key, value)
    image.save(file, format="PNG", pnginfo=mark, **options)


def is_result(path: Path) -> bool:
    """Whether ``write_image`` wrote this file."""
    try:
        with path.open("rb") as file:
            return RESULT_MARK in file.read(256)
    except OSError:
        return False
