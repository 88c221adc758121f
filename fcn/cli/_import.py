"""``fcn data import``: annotations of other tools to folders of images and masks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ._options import add_max_megapixels

if TYPE_CHECKING:
    from ..data.importers import Annotations, MaskOptions, Written

KEYS = ("data.images", "data.masks", "data.classes")
FORMATS = ("labelme", "coco", "yolo", "cvat", "label_studio", "masks")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a folder, or an annotation file with its images beside or below it")
    parser.add_argument("out", help="a new folder: images, masks as palette PNGs, classes.txt, summary.png")
    parser.add_argument("--format", choices=FORMATS, help="where the source does not tell, or may be several")
    parser.add_argument("--images", metavar="FOLDER", help="where the images are, if not in the source")
    parser.add_argument(
        "--split",
        choices=("keep", "none"),
        default="keep",
        help="keep the splits of the source, or leave it to training to divide the images (default: keep)",
    )
    parser.add_argument("--key", metavar="NAME", help="the variable of .mat masks, such as groundTruth.Segmentation")
    add_max_megapixels(parser)


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    from ..data.dataset import FileDataset
    from ..data.importers import FORMATS, MASKS, read_source, write
    from ..data.importers.writing import check_out
    from ..data.opening import allow_megapixels
    from ..evaluation.gallery import save_gallery
    from ..text import shown

    allow_megapixels(options.max_megapixels)
    source, out = Path(options.source).expanduser(), Path(options.out).expanduser()
    images = None if options.images is None else Path(options.images).expanduser()
    check_out(out, source)
    name, found = read_source(source, options.format, images, _mask_options(options, overrides))
    what = "images and masks" if name == MASKS else FORMATS[name].what
    print(f"{source}: {what} (--format {name}), {len(found.items)} images")
    written = write(found, out, splits=options.split == "keep", progress=True)
    for line in (*_lines(found, written), *found.notes.lines()):
        print(shown(line))
    datasets = [(split, FileDataset(pairs, found.classes, found.palette)) for split, pairs in written.pairs.items()]
    save_gallery(out / "summary.png", datasets)
    print(f"written to {out}: look at {out / 'summary.png'}, then 'fcn train {out}'")
    for line in found.left_out.lines():
        print(f"fcn data import: left out: {shown(line)}", file=sys.stderr)
    return 1 if found.left_out else 0


def _mask_options(options: argparse.Namespace, overrides: list[str]) -> MaskOptions:
    from ..data.importers import MaskOptions

    if not overrides:
        return MaskOptions(key=options.key)
    from ..recipes.config import load_data_config

    given = {word.lstrip("-").split("=")[0] for word in overrides if word.startswith("--")}
    unknown = [key for key in sorted(given) if not key.startswith(KEYS)]
    if unknown:
        raise ValueError(
            f"data import takes --{', --'.join(KEYS)} and none else of a recipe's keys, got --{unknown[0]}"
        )
    data = load_data_config(["--data.kind=folder", *overrides])
    return MaskOptions(
        data.images if "data.images" in given else "",
        data.masks if "data.masks" in given else "",
        data.classes,
        options.key,
    )


def _lines(found: Annotations, written: Written) -> list[str]:
    """What was understood: splits, and classes with their share of pixels."""
    from ..data.folders import SPLITS

    splits = [f"{split} {len(written.pairs[split])}" for split in SPLITS if split in written.pairs]
    total = max(1, int(written.pixels.sum()) + written.void)
    count = sum(map(len, written.pairs.values()))
    shares = [
        f"{name} {100 * pixels / total:.1f} ({images})"
        for name, pixels, images in zip(found.classes, written.pixels, written.images, strict=True)
    ]
    if written.void:
        shares.append(f"void {100 * written.void / total:.1f}")
    return [
        f"splits: {', '.join(splits)}" if splits else "splits: none, training divides the images",
        f"{len(found.classes)} classes, % of pixels (in how many of {count} images): {', '.join(shares)}",
    ]
