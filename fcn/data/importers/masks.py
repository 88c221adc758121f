"""Images and masks as files: of indices, grays or colors, in any layout that folders and names tell, stacks, arrays."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from ...errors import DataError
from ..color_table import find_color_table
from ..folders import SPLIT, SPLITS, folder
from ..listing import Pair
from ..patterns import ARRAY_SUFFIXES, is_pattern, pairs_by_patterns
from ..registry import recognize
from ..sources import NUMBERED
from .arrays import page_pixels, stack
from .form import Annotations, Item, Remarks
from .pairs import find_pairs
from .tree import Tree, lines_of, split_named
from .values import Mask, Meaning, find_meaning


@dataclass(frozen=True)
class MaskOptions:
    """What is given where a source does not tell: patterns or folders of images and masks, values or colors of classes,
    and the variable of ``.mat`` files."""

    images: str = ""
    masks: str = ""
    classes: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None


def find(tree: Tree) -> list[Path]:
    """The first mask, if images have masks. Raises ``DataError`` where several are as good."""
    return [mask for _, mask in find_pairs(tree, Remarks())[:1]]


def read(tree: Tree, options: MaskOptions) -> Annotations:
    """Classes: by the option, a table, ``classes.txt``, or the masks. Raises ``DataError``."""
    stack.cache_clear()  # files may have changed
    notes, left_out = Remarks(), Remarks()
    pairs = _given_pairs(tree, options, notes) if options.images or options.masks else find_pairs(tree, notes)
    if not pairs:
        raise DataError(
            f"{tree.source}: no image with a mask: none is called like its image, with a word such as 'mask' in its "
            "name or folder; --data.images 'PHOTOS/*.jpg' --data.masks 'MASKS/*_mask.png', with your names, says it"
        )
    notes.add(f"{pairs[0][1]} is the mask of {pairs[0][0]}, and so on")
    lists = _lists(tree)
    drafts: list[tuple[Item, Mask]] = []
    for image, path in pairs:
        try:
            drafts += _drafts(tree, image, path, options.key, lists)
        except DataError as error:
            left_out.add(str(error))
    if not drafts:
        raise DataError(left_out.lines()[0])
    meaning = find_meaning(tree, [mask for _, mask in drafts], options.classes, notes)
    for item, mask in drafts:
        item.labels = functools.partial(meaning.labels, mask)
    _say_known(tree.root, meaning, notes)
    return Annotations(meaning.classes, meaning.palette, [item for item, _ in drafts], notes, left_out)


def _say_known(root: Path, meaning: Meaning, notes: Remarks) -> None:
    """Where a training reads the source as it is, and in the same way."""
    kind = recognize(root)
    if kind != "folder" and find_color_table(root) is None:
        notes.add(
            f"this looks like the data set {kind}: 'fcn train --data.kind {kind}' reads it as it is, and names classes"
        )
    elif kind == "folder" and ((root / "classes.txt").is_file() or find_color_table(root)):
        try:
            known = folder(root, "train")
        except DataError:
            return
        own, ours = known.codes, meaning.codes
        if (known.classes, own.classes, own.void) == (meaning.classes, ours.classes, ours.void):
            notes.add("training reads this folder as it is (--data.kind folder); it needs no import")


def _given_pairs(tree: Tree, options: MaskOptions, notes: Remarks) -> list[Pair]:
    """Of patterns; a folder stands for all files in it and below."""
    if not (options.images and options.masks):
        raise DataError("--data.images and --data.masks go together: which files are images, and which are masks")
    patterns = [text if is_pattern(text) else f"{text.rstrip('/')}/**/*" for text in (options.images, options.masks)]
    names = SPLITS if SPLIT in patterns[0] else ("",)
    pairs: list[Pair] = []
    for name in names:
        found, said = pairs_by_patterns(tree.root, tree.files, *(text.replace(SPLIT, name) for text in patterns))
        pairs += found
        for text in said:
            notes.add(text)
    if not pairs:
        raise DataError(f"{tree.source}: no image matches '{patterns[0]}'")
    return pairs


def _drafts(tree: Tree, image: Path, mask: Path, key: str | None, lists: Mapping[str, str]) -> list[tuple[Item, Mask]]:
    """An item, or of a stack one for each page. Raises ``DataError``."""
    name = tree.name(image)
    split = tree.split_of(image) or tree.split_of(mask) or lists.get(image.stem, "")
    count = len(stack(image))
    of_mask = 1 if mask.suffix.lower() in ARRAY_SUFFIXES else len(stack(mask))
    if count != of_mask:
        raise DataError(f"{mask}: {of_mask} pages, and its image {image.name} has {count}")
    if count == 1:
        return [(Item(name, image, mask, split=split), Mask(mask, None, key))]
    return [
        (
            Item(NUMBERED.format(name, page + 1), functools.partial(page_pixels, image, page), mask, split=split),
            Mask(mask, page),
        )
        for page in range(count)
    ]


def _lists(tree: Tree) -> dict[str, str]:
    """Splits by the stems of images, of lists that are called as a split is: ``ImageSets/Segmentation/train.txt``."""
    found: dict[str, str] = {}
    for path in tree.with_suffix(".txt"):
        split = split_named([path.stem]) if path.stem.isalpha() else ""
        if split:
            found |= {PureWindowsPath(line.split()[0]).stem: split for _, line in lines_of(path)}
    return found
