"""Reading and writing image files; every error names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..files import replacing

VOID = 255
ImageLike = str | Path | Image.Image | np.ndarray
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def to_uint8(image: np.ndarray, name: str = "image") -> np.ndarray:
    """``[H, W]`` or ``[H, W, 1 | 3 | 4]`` of uint8, uint16 or bool as uint8 ``[H, W]``, ``[H, W, 3]`` or ``[H, W, 4]``.

    Raises ``DataError`` for any other shape or dtype.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)) or image.size == 0:
        raise DataError(f"{name}: an image must be [H, W] or [H, W, 1, 3 or 4] and not empty, got shape {image.shape}")
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DataError(f"{name}: an image must be uint8 or uint16, got {image.dtype}")
    return image


def pil_to_array(image: Image.Image, name: str = "image") -> np.ndarray:
    """A PIL image of any mode as uint8 ``[H, W, 3]``; 16-bit gray is scaled to 8 bits, transparency dropped."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{name}: values from {values.min()} to {values.max()}; 8 or 16 bits are wanted")
        gray = to_uint8(values.astype(np.uint16), name)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{name}: float pixels; 8 or 16 bits are wanted")
    return np.asarray(image.convert("RGB"))


def read_image(path: str | Path) -> np.ndarray:
    """uint8 ``[H, W, 3]``. Raises ``DataError`` naming the file if it is missing, truncated or not an image."""
    with Opened(path, "image") as image:
        return pil_to_array(image, str(path))


def to_array(image: ImageLike) -> np.ndarray:
    """An image in any of the accepted forms as uint8 ``[H, W]``, ``[H, W, 3]`` or ``[H, W, 4]``."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    return pil_to_array(image) if isinstance(image, Image.Image) else to_uint8(np.asarray(image))


def write_image(path: str | Path, image: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    with replacing(path) as partial:
        image.save(partial, format="PNG", optimize=True)


class Opened:
    """``Image.open`` that decodes at once and turns Pillow's many errors into one that names the file."""

    def __init__(self, path: str | Path, what: str) -> None:
        self.path, self.what = Path(path), what

    def __enter__(self) -> Image.Image:
        try:
            self.image = Image.open(self.path)
            self.image.load()
        except FileNotFoundError:
            raise DataError(f"{self.path}: {self.what} not found") from None
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
            raise DataError(f"{self.path}: cannot read {self.what}: {error}") from None
        return self.image

    def __exit__(self, *_: object) -> None:
        self.image.close()
