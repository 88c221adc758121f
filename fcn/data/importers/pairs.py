"""Which mask belongs to which image, as folders and names say: ``train/images/a.jpg``, ``train_masks/a_mask.png``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ...errors import DataError
from ..folders import OTHER_NAMES, SPLITS
from ..listing import Pair
from ..pairing import pair_up
from ..patterns import ARRAY_SUFFIXES
from .form import Remarks
from .tree import Tree

MASK_WORDS = {
    "mask", "masks", "label", "labels", "labelmap", "labelmaps", "annotation", "annotations", "annot", "annots", "ann",
    "anno", "gt", "gts", "groundtruth", "truth", "seg", "segs", "segmentation", "segmentations", "segmentationclass",
    "segmentationclasspng", "segmentationclassraw", "matte", "labelids", "labeltrainids", "trimaps", "machine",
    "target", "targets", "manual", "manual1",
}  # fmt: skip
IMAGE_WORDS = {
    "image", "images", "img", "imgs", "jpegimages", "photo", "photos", "picture", "pictures", "original", "originals",
    "input", "inputs", "rgb", "raw", "frame", "frames", "data",
}  # fmt: skip
OTHER_PICTURES = {
    "segmentationobject", "instance", "instances", "human", "visualization", "visualizations", "viz", "vis", "overlay",
    "overlays", "preview",
}  # fmt: skip
"""Words for pictures of single objects, or for the eye alone."""


def find_pairs(tree: Tree, notes: Remarks) -> list[Pair]:
    """Files whose paths are the same without the words for images and masks; where a word for masks decides which is
    the mask, of folders before names; of a JPEG and another file of one name, it is the other. ``notes`` take images
    without a mask, and masks without an image.

    Raises ``DataError`` where two masks, or two images, are as good.
    """
    images: dict[tuple[str, ...], Path] = {}
    masks: dict[tuple[str, ...], Path] = {}
    for path in [*tree.images, *tree.with_suffix(*ARRAY_SUFFIXES)]:
        folders, words = _words(tree.below(path))
        if OTHER_PICTURES & {*folders, *words}:
            continue
        own = masks if _is_mask(path, folders, words) else images
        key = (*_core(folders), "/", *_core(words))
        if key in own and own is images and key not in masks and _is_jpeg(path) != _is_jpeg(own[key]):
            images[key], masks[key] = (path, own[key]) if _is_jpeg(path) else (own[key], path)
            continue
        if key in own:
            raise DataError(
                f"{own[key]} and {path}: which is meant? --data.images 'PHOTOS/*.jpg' --data.masks 'MASKS/*_mask.png', "
                "with your names, says it"
            )
        own[key] = path
    pairs = [(image, masks[key]) for key, image in images.items() if key in masks]
    images, masks = _rest(images, pairs, 0), _rest(masks, pairs, 1)
    pairs += _by_stem(tree, images, masks)
    if not pairs:
        pairs = _by_common_parts(images.values(), masks.values())
    used = {path for pair in pairs for path in pair}
    for path in images.values():
        if path not in used:
            notes.add("no mask belongs to this image; it is left out", path)
    for path in masks.values():
        if path not in used:
            notes.add("no image belongs to this mask; it is not used", path)
    return pairs


def _words(below: PurePosixPath) -> tuple[list[str], list[str]]:
    """Those of folders, and of the name, in lower case."""
    return [word for part in below.parts[:-1] for word in _split(part)], _split(below.stem)


def _split(text: str) -> list[str]:
    text = re.sub(r"ground[ _-]?truth", "groundtruth", text.lower())
    splits = "|".join((*SPLITS, *(name for names in OTHER_NAMES.values() for name in names)))
    joined = "|".join(sorted(MASK_WORDS | IMAGE_WORDS, key=len, reverse=True))
    text = re.sub(rf"\b({splits})({joined})\b", r"\1 \2", text)
    return [word for word in re.split(r"[ _\-.]+", text) if word]


def _is_mask(path: Path, folders: Sequence[str], words: Sequence[str]) -> bool:
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return True
    for word in reversed(folders):
        if word in MASK_WORDS | IMAGE_WORDS:
            return word in MASK_WORDS
    return bool(words) and bool({words[0], words[-1]} & MASK_WORDS)


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in (".jpg", ".jpeg")


def _core(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in MASK_WORDS | IMAGE_WORDS)


def _rest(files: dict[tuple[str, ...], Path], pairs: Sequence[Pair], side: int) -> dict[tuple[str, ...], Path]:
    used = {pair[side] for pair in pairs}
    return {key: path for key, path in files.items() if path not in used}


def _by_stem(tree: Tree, images: dict[tuple[str, ...], Path], masks: dict[tuple[str, ...], Path]) -> list[Pair]:
    """Wherever they lie in a split: where the names alone are the same, and no other is called so."""
    sides: list[dict[tuple[str, ...], list[Path]]] = []
    for files in (images, masks):
        found: dict[tuple[str, ...], list[Path]] = {}
        for path in files.values():
            _, words = _words(tree.below(path))
            found.setdefault((tree.split_of(path), *_core(words)), []).append(path)
        sides.append(found)
    return [
        (of_image[0], sides[1][key][0])
        for key, of_image in sides[0].items()
        if len(of_image) == 1 and len(sides[1].get(key, ())) == 1
    ]


def _by_common_parts(images: Iterable[Path], masks: Iterable[Path]) -> list[Pair]:
    """Of one folder of images and one of masks: where names are the same but for what all have in common."""
    folders = {path.parent for path in images}, {path.parent for path in masks}
    if len(folders[0]) != 1 or len(folders[1]) != 1 or folders[0] == folders[1]:
        return []
    try:
        return pair_up(folders[0].pop(), folders[1].pop())[0]
    except DataError:
        return []
