"""Files are written whole: readers see the old one or the new one, never a part, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import ConfigError, DataError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; on leaving without an error it is flushed to disk and takes the
    place of ``path``, else it is removed. Missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
        with suppress(OSError):  # not every file system flushes folders; the file is in its place
            _flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace a file by UTF-8 text."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_regular(path: Path, what: str) -> None:
    """Raises ``DataError`` for pipes, devices and folders: opening them may wait for ever."""
    if path.is_dir():
        raise DataError(f"{path}: a folder, and a file is wanted ({what})")
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: a pipe or a device, and a file is wanted ({what})")


def check_outputs(outputs: Iterable[str | os.PathLike[str]], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raises ``ConfigError`` where a file to be written is one that is read, one of the others, or a folder."""
    read = {os.path.realpath(path): path for path in inputs}
    written: dict[str, Path] = {}
    for path in map(Path, outputs):
        real = os.path.realpath(path)
        if real in read:
            raise ConfigError(f"{path}: this file is read, and would be written over; give another name or folder")
        if real in written:
            raise ConfigError(f"{path}: two results would be written to this file; give them separately")
        if path.is_dir():
            raise ConfigError(f"{path}: a folder is there, where a file would be written")
        written[real] = path


def _flush(path: Path) -> None:
    """To disk: a rename may otherwise survive a power cut that the contents do not."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
