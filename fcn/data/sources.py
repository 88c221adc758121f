"""What ``fcn predict`` labels: image files, folders, patterns, and the frames of videos."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from .files import IMAGE_SUFFIXES, read_image

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


def find_files(arguments: Sequence[str]) -> list[Path]:
    """Files as given, folders as the images and videos in them, patterns (``*``, ``?``, ``**``) as what they match.

    Raises ``DataError`` for what is missing, and for two files whose results would have one name.
    """
    files: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            known = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
            found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in known)
            if not found:
                raise DataError(f"{path}: no images in this folder")
            files += found
        elif path.exists():
            files.append(path)
        elif glob.has_magic(argument):
            matches = sorted(map(Path, glob.glob(argument, recursive=True)))
            if not matches:
                raise DataError(f"{argument}: no file matches")
            files += matches
        else:
            raise DataError(f"{path}: no such file or folder")
    seen: dict[str, Path] = {}
    for path in files:
        if path.stem in seen:
            raise DataError(f"{seen[path.stem]} and {path} would be written to the same file; give them separately")
        seen[path.stem] = path
    return files


def read_frames(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """``(name, image)``, uint8 ``[H, W, 3]``: the one of an image file, and of a video every frame, numbered from 1.

    Raises ``DataError`` naming the file if it cannot be read, for a video possibly after some frames.
    """
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        yield path.stem, read_image(path)
        return
    try:
        import av
    except ImportError as error:
        raise DataError(f"{path}: videos are read with PyAV: pip install 'fcn-kernels[video]'") from error
    try:
        with av.open(str(path)) as video:
            for number, frame in enumerate(video.decode(video=0), start=1):
                yield f"{path.stem}_{number:06d}", frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:  # IndexError: there is sound only
        raise DataError(f"{path}: not readable as a video: {error}") from error
