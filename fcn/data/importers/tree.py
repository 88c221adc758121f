"""The files of a source, and how names in annotations become files: by what is there, never by the path they give."""

from __future__ import annotations

import codecs
import functools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ...errors import DataError
from ...files import check_regular
from ..folders import OTHER_NAMES, SPLITS
from ..opening import is_hidden, is_image


class Tree:
    """A folder and all below it; or an annotation file, with the folder that it lies in.

    images: a further folder in which images are looked for. Raises ``DataError`` for what is missing or no folder.
    """

    def __init__(self, source: Path, images: Path | None = None) -> None:
        if source.suffix.lower() in (".zip", ".tar", ".gz", ".7z", ".rar"):
            raise DataError(f"{source}: an archive; unpack it, and give the folder")
        if not source.exists():
            raise DataError(f"{source}: no such file or folder")
        if images is not None and not images.is_dir():
            raise DataError(f"{images}: no such folder (of images)")
        if not source.is_dir():
            check_regular(source, "annotation")
        self.source = source
        self.root = source if source.is_dir() else source.parent
        self.files = _walk(self.root)
        own = self.files if source.is_dir() else [source]
        self.annotations = [path for path in own if not is_image(path)]
        """What may say something of images: all else than images, or the one file that was given."""
        roots = [self.root] if images is None else [images, self.root]
        self.images = [path for root in roots for path in (self.files if root == self.root else _walk(root))]
        self.images = [path for path in dict.fromkeys(self.images) if is_image(path)]
        self._roots = roots

    def below(self, path: Path) -> PurePosixPath:
        """``path`` as seen from the source."""
        for root in self._roots:
            if path.is_relative_to(root):
                return PurePosixPath(path.relative_to(root).as_posix())
        raise ValueError(f"{path} is no file of {self.root}")

    def name(self, path: Path) -> str:
        """By which an image is called in what is written: its path without suffix."""
        return str(self.below(path).with_suffix(""))

    def __contains__(self, path: Path) -> bool:
        return path in self._files

    @functools.cached_property
    def _files(self) -> frozenset[Path]:
        return frozenset(self.files)

    def with_suffix(self, *suffixes: str) -> list[Path]:
        return [path for path in self.annotations if path.suffix.lower() in suffixes]

    def image(self, name: str, near: Path) -> Path | None:
        """The image that an annotation in the file ``near`` calls ``name``: a path whose end says most of it, of equal
        ones that beside or below ``near``; None where there is none. Raises ``ValueError`` where several are as good.
        """
        wanted = [part for part in PureWindowsPath(name).parts if part not in ("..", ".")]  # takes / and \
        found = self._by_name.get(wanted[-1].lower(), []) if wanted else []
        if not found:
            return None
        here = near.parent
        ranks = {path: (_agreement(path, wanted), path.is_relative_to(here)) for path in found}
        top = max(ranks.values())
        best = [path for path in found if ranks[path] == top]
        if len(best) > 1:
            raise ValueError(f"image {name!r} may be {best[0]} or {best[1]}")
        return best[0]

    @functools.cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in self.images:
            found.setdefault(path.name.lower(), []).append(path)
        return found

    def split_of(self, path: Path, file_too: bool = False) -> str:
        """By the folders that a file lies in, or its name as well."""
        below = self.below(path)
        return split_named(below.with_suffix("").parts if file_too else below.parts[:-1])


def split_named(parts: Sequence[str]) -> str:
    """The split that the last of ``parts`` that names one does: ``valid``, ``instances_train2017``; else nothing."""
    meaning = {name: split for split in SPLITS for name in (split, *OTHER_NAMES[split])}
    for part in reversed(parts):
        for word in re.findall("[a-z]+", part.lower()):
            if word in meaning:
                return meaning[word]
    return ""


def _agreement(path: Path, wanted: Sequence[str]) -> int:
    """So many parts of the two paths are the same, from the end."""
    count = 0
    for own, other in zip(reversed(path.parts), reversed(wanted), strict=False):
        if own.lower() != other.lower():
            break
        count += 1
    return count


def _walk(root: Path) -> list[Path]:
    """Files at any depth, by name, without hidden ones; links to folders are not followed."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not is_hidden(Path(name)))
        found += [Path(folder, name) for name in sorted(names) if not is_hidden(Path(name))]
    return found


def read_text(path: Path) -> str:
    """UTF-8, or UTF-16 with its mark. Raises ``DataError``."""
    check_regular(path, "annotation")
    try:
        content = path.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text in UTF-8 (byte {error.start})") from None


@functools.lru_cache(maxsize=2)  # of a large file: once to recognize it, once to read it
def read_json(path: Path) -> Any:
    """Raises ``DataError``."""
    try:
        return json.loads(read_text(path))
    except DataError:
        raise
    except RecursionError:
        raise DataError(f"{path}: nested too deeply for an annotation") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, numbered from 1."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            yield number, line.strip()
