"""Which mask belongs to which image, in folders and lists as tools write them; notes say what was understood."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath

from .listing import Pair, files_in, match
from .opening import FOREIGN_SUFFIXES, is_hidden


def pair_up(images: Path, masks: Path, lines: Sequence[str] | None = None) -> tuple[list[Pair], list[str]]:
    """Pairs of the files of two folders, of all images or of those that the ``lines`` of a list name, and notes.

    Where no mask has the stem of its image, one ending or beginning that all masks (or images) have in common is left
    out: ``a.png``, ``a_mask.png``. Raises ``DataError`` for a missing file.
    """
    image_files, mask_files = files_in(images), files_in(masks)
    notes = _unread(images)
    if image_files and mask_files and not image_files.keys() & mask_files.keys():
        renamed = _by_common_parts(image_files, mask_files)
        if renamed is not None:
            image, mask = next(iter(renamed.items()))
            notes.append(f"{masks}: {mask.name} is taken as the mask of {image_files[image].name}, and so on")
            mask_files = renamed
    if not image_files.keys() & mask_files.keys() and not mask_files:
        notes += _unread(masks)
    without = [mask_files[stem].name for stem in mask_files if stem not in image_files]
    if without:
        notes.append(f"{masks}: {len(without)} masks have no image and are not used: {_some(without)}")
    stems = list(image_files) if lines is None else [stem_of(line, image_files) for line in lines]
    pairs = match(image_files, mask_files | _masks_given(lines or (), image_files, mask_files), (images, masks), stems)
    if lines is not None and stems != list(lines):
        notes.append(f"the split's list: '{lines[0]}' is taken as the image {pairs[0][0].name}, and so on")
    return pairs, notes


def _unread(folder: Path) -> list[str]:
    names = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in FOREIGN_SUFFIXES]
    left = [path.name for path in names if not is_hidden(Path(path.name))]
    why = FOREIGN_SUFFIXES[Path(left[0]).suffix.lower()] if left else ""
    return [f"{folder}: {len(left)} files are left out: {_some(left)} ({why})"] if left else []


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def stem_of(line: str, files: Mapping[str, Path]) -> str:
    """The stem that a line names: by itself, as a file's name or path, or in the first of two columns."""
    return next((stem for stem in _readings(line) if stem in files), line)


def _readings(line: str) -> list[str]:
    """A line as a stem, a path, a path with suffix, and its first column as these."""
    found = []
    for text in (line, re.split(r"[\s,;]+", line)[0]):
        path = PureWindowsPath(text.strip("\"'"))  # takes / and \
        found += [text, path.name, path.stem]
    return found


def _masks_given(lines: Iterable[str], images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, Path]:
    """Masks that the second column of a list names, by the stems of their images."""
    given = {}
    for line in lines:
        columns = re.split(r"[\s,;]+", line)
        if line not in images and len(columns) == 2:
            stem = next((stem for stem in _readings(columns[1]) if stem in masks), None)
            if stem is not None:
                given[stem_of(line, images)] = masks[stem]
    return given


def _by_common_parts(images: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[str, Path] | None:
    """Masks by the stems of their images, if leaving out what all have in common pairs every image; else None."""
    for image_part in _common_parts(images):
        cores = {_without(stem, image_part): stem for stem in images}
        for mask_part in _common_parts(masks):
            found = {_without(stem, mask_part): path for stem, path in masks.items()}
            if len(cores) == len(images) and len(found) == len(masks) and cores.keys() <= found.keys():
                return {stem: found[core] for core, stem in cores.items()}
    return None


Part = tuple[str, str]
"""What a stem begins and ends with."""


def _common_parts(stems: Iterable[str]) -> list[Part]:
    """Nothing, and every ending and beginning of the first stem with a letter, up to a separator, that all have."""
    first, *others = stems
    cuts = [match.start() for match in re.finditer(r"[_\-. ]|(?<=\d)[A-Za-z]+$", first)]
    endings = [first[cut:] for cut in cuts if cut]
    beginnings = [first[: cut + 1] for cut in cuts if first[cut] in "_-. "]
    parts = [("", ""), *(("", end) for end in endings), *((begin, "") for begin in beginnings)]
    return [
        part
        for part in parts
        if part == ("", "")
        or (
            re.search("[A-Za-z]", "".join(part))
            and all(stem.startswith(part[0]) and stem.endswith(part[1]) for stem in others)
        )
    ]


def _without(stem: str, part: Part) -> str:
    return stem.removeprefix(part[0]).removesuffix(part[1])
