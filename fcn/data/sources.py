"""What ``fcn predict`` labels: image files, folders, patterns, the pages of stacks and the frames of videos."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..files import check_regular
from .files import is_result, pil_to_array
from .opening import is_hidden, is_image, open_lazily, pages, read_pages

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
NUMBERED = "{}_{:06d}"
"""Names of the pages of a stack and of the frames of a video."""


@dataclass(frozen=True)
class Source:
    """A file to label, and the name of its results: a path below the folder for results, without suffix."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES

    def names(self) -> list[str]:
        """Those of all its images; of a video, whose frames nobody has counted, the first."""
        if self.is_video:
            return [NUMBERED.format(self.name, 1)]
        try:
            with open_lazily(self.path, "image") as image:
                count = len(pages(image))
        except DataError:
            return [self.name]  # reading it will say what is wrong
        return [self.name] if count == 1 else [NUMBERED.format(self.name, page) for page in range(1, count + 1)]


def find_sources(arguments: Sequence[str]) -> tuple[list[Source], list[str]]:
    """Files as given, folders as the images and videos in them and below, patterns (``*``, ``?``, ``**``) as what they
    match; and notes on images that are left out, since they are results of this program.

    Results of what a folder or a pattern gives keep their folders below it. Raises ``DataError`` for what is missing,
    and for two files whose results would have one name.
    """
    found: list[Source] = []
    notes: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found += _below(path, sorted(_walk(path)), notes, f"{path}: no images in this folder")
        elif os.path.lexists(path):
            found.append(Source(path, path.stem))
        elif glob.has_magic(argument):
            matches = sorted(match for match in map(Path, glob.glob(argument, recursive=True)) if not match.is_dir())
            if not matches:
                raise DataError(f"{argument}: no file matches")
            fixed = re.split(r"[*?\[]", argument)[0]
            base = Path(fixed if fixed.endswith(("/", os.sep)) else os.path.dirname(fixed))
            found += _below(base, matches, notes, f"{argument}: no image matches")
        else:
            raise DataError(f"{path}: no such file or folder")
    _check_names(found)
    return found, notes


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if is_hidden(Path(entry.name)):
            continue
        if entry.is_dir():
            yield from _walk(entry)
        else:
            yield entry


def _below(base: Path, files: Sequence[Path], notes: list[str], nothing: str) -> list[Source]:
    """Images and videos among ``files``, named by where they lie below ``base``."""
    images = [file for file in files if is_image(file) or file.suffix.lower() in VIDEO_SUFFIXES]
    images = [file for file in images if not is_hidden(file.relative_to(base))]
    results = [file for file in images if file.suffix.lower() == ".png" and file.is_file() and is_result(file)]
    if results:
        notes.append(f"{base}: {len(results)} images are left out, as results of fcn predict ({results[0].name}, ...)")
    images = [file for file in images if file not in set(results)]
    if not images:
        raise DataError(nothing)
    return [Source(file, file.relative_to(base).with_suffix("").as_posix()) for file in images]


def _check_names(sources: Sequence[Source]) -> None:
    seen: dict[str, Path] = {}
    for source in sources:
        if source.name in seen:
            raise DataError(
                f"{seen[source.name]} and {source.path} would be written to the same file; give them separately, or a "
                "folder or a pattern in quotes, whose results keep their subfolders"
            )
        seen[source.name] = source.path
    for source in sources:
        video, number = re.fullmatch(r"(.*?)(_\d{6,})?", source.name, re.DOTALL).groups()  # type: ignore[union-attr]
        if number and seen.get(video, Path()).suffix.lower() in VIDEO_SUFFIXES:
            raise DataError(f"{source.path} and a frame of {seen[video]} would be written to the same file")


def read_frames(source: Source) -> Iterator[tuple[str, np.ndarray]]:
    """``(name, image)``, ``[H, W, 3]``, uint8 or of 16-bit gray uint16: the one of an image file; of a stack every
    page, and of a video every frame, numbered from 1.

    Raises ``DataError`` naming the file if it cannot be read, for a video possibly after some frames.
    """
    path = source.path
    if not source.is_video:
        names = source.names()
        for name, image in zip(names, read_pages(path), strict=True):
            yield name, pil_to_array(image, str(path))
        return
    check_regular(path, "video")
    try:
        import av
    except ImportError as error:
        raise DataError(f"{path}: videos are read with PyAV: pip install 'fcn-kernels[video]'") from error
    try:
        with av.open(str(path)) as video:
            for number, frame in enumerate(video.decode(video=0), start=1):
                yield NUMBERED.format(source.name, number), frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:  # IndexError: there is sound only
        raise DataError(f"{path}: not readable as a video: {error}") from error
