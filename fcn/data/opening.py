"""Opening image files: which there are, what of them is used, and one line that names the file where one cannot be."""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError, TooLargeError
from ..files import check_regular

IMAGE_SUFFIXES = [
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".avif", ".avifs", ".tga", ".pcx", ".qoi", ".sgi",
    ".ras", ".mpo", ".psd", ".dds",
]  # fmt: skip
"""Files that are images and that Pillow reads, with the plugins that are installed."""
FOREIGN_SUFFIXES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIF is read with a plugin: pip install pillow-heif"),
    ".jxl": "JPEG XL is read with a plugin: pip install pillow-jxl-plugin",
    **dict.fromkeys(
        (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"),
        "a camera's raw file; develop it to PNG or TIFF first",
    ),
    **dict.fromkeys((".dcm", ".nii", ".mha", ".nrrd"), "a medical image; save its slices as PNG or TIFF first"),
    **dict.fromkeys((".svg", ".eps", ".wmf", ".emf"), "a drawing, not pixels; save it as PNG first"),
    **dict.fromkeys((".exr", ".hdr", ".pfm"), "float pixels; save it with 8 or 16 bits first"),
    **dict.fromkeys(
        (".xcf", ".kra", ".czi", ".lif", ".nd2", ".svs"), "another program's format; save it as TIFF first"
    ),
}
"""Files that a person would call images and that are not read: why, and the way out."""
OFFERED_FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF", "JXL",
)  # fmt: skip
"""What is read of strangers' files, by Pillow's names: pictures of today that begin with bytes of their own, and none
that another program is started for (EPS)."""
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
PAGED_FORMATS = ("TIFF", "GIF", "WEBP", "PNG", "AVIF", "HEIF", "MPO")
ORIENTATION = 0x0112
"""EXIF's tag; 1 is as stored."""
LIMIT_MEGAPIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
"""Pillow's limit against files that are small and decode to gigabytes."""

for plugin, register, suffixes in (
    ("pillow_heif", "register_heif_opener", (".heic", ".heif", ".hif")),
    ("pillow_jxl", "", (".jxl",)),
):
    with contextlib.suppress(ImportError):
        module = __import__(plugin)
        if register:
            getattr(module, register)()
        for suffix in suffixes:
            FOREIGN_SUFFIXES.pop(suffix)
            IMAGE_SUFFIXES.append(suffix)


def is_hidden(path: Path) -> bool:
    """Files that systems keep beside a user's: ``._a.png``, ``__MACOSX``. Of a relative path, its folders count too."""
    return any((part.startswith(".") and part not in (".", "..")) or part in SYSTEM_FOLDERS for part in path.parts)


def is_image(path: Path) -> bool:
    """By its name: what a person would call an image, whether it can be read or not."""
    return path.suffix.lower() in IMAGE_SUFFIXES or path.suffix.lower() in FOREIGN_SUFFIXES


def allow_megapixels(limit: float) -> None:
    """Read images of up to ``limit`` million pixels in this process, without warnings."""
    Image.MAX_IMAGE_PIXELS = int(limit * 1e6 / 2)  # Pillow warns from here on, and refuses twice as many.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class Opened:
    """``Image.open`` that decodes at once and turns Pillow's many errors into one that names the file.

    With ``content``, what a stranger sent under the name ``path``. Raises ``DataError`` for files of several pages too,
    where one image is wanted.
    """

    def __init__(self, path: str | Path, what: str, content: BinaryIO | None = None) -> None:
        self.path, self.what, self.content = Path(path), what, content

    def __enter__(self) -> Image.Image:
        if self.content is None:
            self.image = open_lazily(self.path, self.what)
        else:
            self.image = open_offered(self.path, self.what, self.content)
        try:
            count = len(pages(self.image))
            if count > 1:
                raise DataError(
                    f"{self.path}: {count} pages, and one {self.what} is wanted; save each page as a file of its own"
                )
            self.rawmode = rawmode(self.image)
            with _named(self.path, self.what):
                self.image.load()
        except BaseException:
            self.image.close()
            raise
        return self.image

    def __exit__(self, *_: object) -> None:
        self.image.close()


def open_lazily(path: Path, what: str) -> Image.Image:
    """An open image whose pixels are not decoded yet."""
    check_regular(path, what)
    with _named(path, what):
        return Image.open(path)


def open_offered(name: Path, what: str, content: BinaryIO) -> Image.Image:
    """``open_lazily`` of a stranger's file, which errors call ``name``; of ``OFFERED_FORMATS`` alone."""
    Image.init()  # Pillow's plugins
    formats = [format for format in OFFERED_FORMATS if format in Image.OPEN]
    with _named(name, what):
        try:
            image = Image.open(content, formats=formats)
        except UnidentifiedImageError:
            raise DataError(f"{name}: no {what} that can be read; wanted is one of {', '.join(formats)}") from None
    image.filename = str(name)  # as of a file that was opened by its path
    return image


def read_pages(path: Path) -> Iterator[Image.Image]:
    """Every page of an image file, decoded; to be used before the next is taken."""
    with open_lazily(path, "image") as image:
        for page in pages(image):
            with _named(path, "image"):
                image.seek(page)
                image.load()
            yield image


class Stack:
    """The pages of an image file, in any order and for several threads. The file stays open: finding a page means
    reading where all before it lie."""

    def __init__(self, path: Path, what: str) -> None:
        self.path, self.what = path, what
        self._image = open_lazily(path, what)
        self._pages = pages(self._image)
        self._lock = threading.Lock()
        weakref.finalize(self, self._image.close)

    def __len__(self) -> int:
        return len(self._pages)

    def __getitem__(self, number: int) -> Image.Image:
        """A copy, turned upright. Raises ``DataError``."""
        with self._lock, _named(self.path, self.what):
            self._image.seek(self._pages[number])
            return upright(self._image).copy()


def pages(image: Image.Image) -> list[int]:
    """Numbers of the pages that are pictures of their own: not a TIFF's smaller copies and masks, nor the second
    picture that cameras put into a JPEG."""
    path = Path(getattr(image, "filename", ""))
    if image.format not in PAGED_FORMATS or (image.format == "MPO" and path.suffix.lower() != ".mpo"):
        return [0]
    with _named(path, "image"):
        found = list(range(getattr(image, "n_frames", 1)))
        if image.format == "TIFF" and len(found) > 1:
            found = [page for page in found if not _subfile_type(image, page) & 0b101] or [0]
        if len(found) > 1:
            image.seek(0)
    return found


def left_out(path: Path) -> str | None:
    """What of an image file is not used: bands beyond three colors, the lower bits of 16-bit colors."""
    with open_lazily(path, "image") as image:
        bands = _bands(image)
        if bands > 3 and image.mode in ("RGB", "RGBX", "RGBA"):
            return f"{path}: {bands} bands, of which the first 3 are used"
        if bands > 1 and image.mode in ("L", "LX"):
            return f"{path}: {bands} bands, of which the first is used"
        if ";16" in rawmode(image) and not image.mode.startswith("I"):
            return f"{path}: colors of 16 bits, of which the upper 8 are used"
    return None


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says, as viewers and labeling tools show it; no copy of one that is upright."""
    try:
        return image if image.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    except Exception:  # EXIF data that cannot be parsed say nothing about orientation; Pillow raises many types.
        return image


def orientation(path: Path) -> int:
    """By EXIF, 1 to 8; 1 is as stored."""
    with open_lazily(path, "image") as image:
        try:
            return int(image.getexif().get(ORIENTATION, 1))
        except Exception:  # as in ``upright``
            return 1


def _subfile_type(image: Image.Image, page: int) -> int:
    image.seek(page)
    return int(image.tag_v2.get(254, 0))  # type: ignore[attr-defined]


def _bands(image: Image.Image) -> int:
    """Stored in the file; alpha, which is no color, is not counted."""
    if image.format != "TIFF":
        return len(image.getbands())
    alpha = sum(kind in (1, 2) for kind in image.tag_v2.get(338, ()))  # type: ignore[attr-defined]
    return int(image.tag_v2.get(277, 1)) - alpha  # type: ignore[attr-defined]


def rawmode(image: Image.Image) -> str:
    """How pixels lie in the file: ``L;2`` are gray values of two bits."""
    tile = getattr(image, "tile", None)
    arguments = tile[0][3] if tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


@contextlib.contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """Turns the errors of a file's decoder into one that names the file."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: {what} not found") from None
    except Image.DecompressionBombError as error:
        count = re.search(r"\d+", str(error))
        size = f"{int(count[0]) / 1e6:.0f} megapixels" if count else "it"
        raise TooLargeError(
            f"{path}: {size} is more than the limit against files that decode to gigabytes; "
            "'--max-megapixels N' (in Python PIL.Image.MAX_IMAGE_PIXELS) allows more"
        ) from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error, ...
        why = FOREIGN_SUFFIXES.get(path.suffix.lower())
        raise DataError(f"{path}: cannot read {what}: {why or error}") from None
