"""Any folder of images and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingSplitError
from .dataset import FileDataset
from .listing import Pair, files_in, folder_of, read_names
from .meanings import file_dataset
from .opening import is_hidden
from .pairing import pair_up, stem_of
from .patterns import is_pattern, pairs_by_patterns

SPLITS = ("train", "val", "test")
OTHER_NAMES = {"train": ("training",), "val": ("valid", "validation"), "test": ("testing",)}
"""What tools call the splits."""
RATIO = (0.8, 0.1, 0.1)
SPLIT = "{split}"
"""Stands for the split in a pattern."""
Found = tuple[list[Pair], Iterable[Path], list[str]]
"""Pairs of a split, masks of all splits, and notes."""


def folder(
    root: Path,
    split: str,
    images: str = "images",
    masks: str = "masks",
    *,
    classes: Mapping[str, Any] | None = None,
    ratio: Sequence[float] = RATIO,
    seed: int | None = None,
) -> FileDataset:
    """Your own: folders of images and masks (class indices, or colors with a table).

    Files of one stem belong together, or stems with something that all masks have in common (``a.png``,
    ``a_mask.png``). The first of these layouts that exists is used:

    1. ``<root>/<split>/<images>`` and ``<root>/<split>/<masks>``;
    2. ``<root>/<images>/<split>`` and ``<root>/<masks>/<split>``;
    3. ``<root>/<images>``, ``<root>/<masks>`` and ``<root>/<split>.txt``, in each line a stem, a file's name, or an
       image and its mask;
    4. ``<root>/<images>`` and ``<root>/<masks>`` alone: divided by ``ratio`` into ``train``, ``val`` and ``test``, by
       name (blocks, since neighboring names are often neighboring frames) or, with a ``seed``, by chance.

    ``valid`` and ``validation`` serve as ``val``, ``training`` as ``train``, ``testing`` as ``test``.

    Where ``images`` and ``masks`` hold a ``*``, they are patterns of paths below ``root`` in which it stands for the
    same (``photos/*.jpg`` and ``photos/*_L.png``), and ``{split}`` for the split; without ``{split}``, as 3 and 4.

    Classes: ``classes``, a gray value or a color by name; else ``<root>/labelmap.txt`` (a line ``name:red,green,blue``
    for each; gray value v is ``v,v,v``; a class called ``void`` or ``ignore`` is void), ``<root>/class_dict.csv`` or
    ``classes.csv`` for masks of colors or of any gray values; ``<root>/classes.txt``, a name in each line and, if you
    like, its color (``road #804080``), for indices; without them, the largest label in the masks of the whole folder
    says how many there are. Colors: those of the file, the palette of the first mask, or the VOC color map.

    ``notes`` of the result say what was understood beyond equal names and indices.
    """
    if is_pattern(images) != is_pattern(masks):
        raise DataError(f"data.images and data.masks must both be folders or both patterns, got '{images}', '{masks}'")
    divide = _Divided(ratio, seed)
    for name in (split, *OTHER_NAMES.get(split, ())):
        if is_pattern(images):
            found = _find_by_patterns(root, name, images, masks, divide)
        else:
            found = _find(root, name, images, masks, divide)
        if found is not None:
            pairs, all_masks, notes = found
            if name != split:
                notes.insert(0, f"{root}: '{name}' is taken as the split {split}")
            return file_dataset(pairs, root, all_masks, notes, classes)
    raise MissingSplitError(
        f"{root}: split '{split}' not found; wanted {split}/{images}, {images}/{split}, or {images} with {split}.txt "
        "('fcn data import' reads what other tools write)"
    )


class _Divided:
    """Images without splits, in three parts."""

    def __init__(self, ratio: Sequence[float], seed: int | None) -> None:
        if len(ratio) != 3 or not all(part >= 0 for part in ratio) or not 0.999 < sum(ratio) < 1.001:
            raise DataError(f"data.ratio must be three parts, of train, val and test, that add up to 1, got {ratio}")
        self._ends = (0.0, ratio[0], ratio[0] + ratio[1], 1.0)
        self._seed = seed

    def __call__(self, pairs: Sequence[Pair], split: str, root: Path) -> list[Pair]:
        """Those of ``split``, in the order of ``pairs``. Raises ``DataError`` if there are none."""
        order = list(range(len(pairs)))
        if self._seed is not None:
            order.sort(key=lambda index: hashlib.sha256(f"{self._seed}/{pairs[index][0].name}".encode()).digest())
        at = SPLITS.index(split)
        first, last = (int(len(pairs) * end + 1e-9) for end in self._ends[at : at + 2])
        if first == last:
            raise DataError(f"{root}: {len(pairs)} images are too few to divide; split '{split}' would be empty")
        return [pairs[index] for index in sorted(order[first:last])]


def _find(root: Path, split: str, images: str, masks: str, divide: _Divided) -> Found | None:
    """None where there is no such split."""
    if (root / split / images).is_dir():
        pairs, notes = pair_up(root / split / images, folder_of(root / split / masks))
        return pairs, _masks(sorted(root.glob(f"*/{masks}"))), notes
    if (root / images / split).is_dir():
        pairs, notes = pair_up(root / images / split, folder_of(root / masks / split))
        return pairs, _masks(sorted(path for path in (root / masks).iterdir() if path.is_dir())), notes
    if (root / f"{split}.txt").is_file():
        pairs, notes = pair_up(root / images, root / masks, read_names(root / f"{split}.txt"))
        return pairs, _masks([root / masks]), notes
    known = {*SPLITS, *(other for others in OTHER_NAMES.values() for other in others)}
    divided = any((root / f"{name}.txt").exists() or (root / images / name).is_dir() for name in known)
    if (root / images).is_dir() and split in SPLITS and not divided:
        everything, notes = pair_up(root / images, root / masks)
        return divide(everything, split, root), _masks([root / masks]), notes
    return None


def _masks(folders: Iterable[Path]) -> Iterator[Path]:
    for each in folders:
        yield from files_in(each).values()


def _find_by_patterns(root: Path, split: str, images: str, masks: str, divide: _Divided) -> Found | None:
    """None where there is no such split."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not is_hidden(path.relative_to(root)))
    names = [split, *SPLITS, *(other for others in OTHER_NAMES.values() for other in others)]
    if SPLIT in images:
        of_splits = {
            name: pairs_by_patterns(root, files, images.replace(SPLIT, name), masks.replace(SPLIT, name))
            for name in dict.fromkeys(names)
        }
        pairs, notes = of_splits[split]
        all_masks = [mask for found, _ in of_splits.values() for _, mask in found]
        return (pairs, all_masks, notes) if pairs else None
    everything, notes = pairs_by_patterns(root, files, images, masks)
    if not everything:
        raise DataError(f"{root}: no image matches '{images}'")
    all_masks = [mask for _, mask in everything]
    if (root / f"{split}.txt").is_file():
        by_stem = {image.stem: (image, mask) for image, mask in everything}
        files_by_stem = {stem: pair[0] for stem, pair in by_stem.items()}
        stems = [stem_of(line, files_by_stem) for line in read_names(root / f"{split}.txt")]
        missing = [stem for stem in stems if stem not in by_stem]
        if missing:
            raise DataError(f"{root / split}.txt: no image matches '{images}' for '{missing[0]}'")
        return [by_stem[stem] for stem in stems], all_masks, notes
    if split not in SPLITS or any((root / f"{name}.txt").exists() for name in names):
        return None
    return divide(everything, split, root), all_masks, notes
