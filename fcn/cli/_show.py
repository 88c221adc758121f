"""``fcn data show``: a page of images with their labels."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..arguments import count
from ._options import add_max_megapixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: those of the data set that are there")
    parser.add_argument("--out", default="show.png", metavar="FILE.png", help="default: show.png")
    parser.add_argument("--count", type=count, default=12, metavar="N", help="so many images (default: 12)")
    add_max_megapixels(parser)


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    from ..data import files_of
    from ..data.files import is_result
    from ..data.opening import allow_megapixels
    from ..errors import ConfigError, DataError
    from ..evaluation.gallery import save_gallery
    from ..files import check_outputs
    from ..text import shown
    from ._options import load_splits

    allow_megapixels(options.max_megapixels)
    data, splits = load_splits(options.root, options.splits, overrides)
    datasets = [(name, part) for name, part in splits.items() if not isinstance(part, DataError)]
    unusable = [part for part in splits.values() if isinstance(part, DataError)]
    if not datasets:
        raise unusable[0]
    for error in unusable:
        print(f"fcn data show: {shown(str(error))}", file=sys.stderr)
    out = Path(options.out)
    check_outputs([out], [path for _, part in datasets for path in files_of(part, data.root)])
    if out.exists() and not is_result(out):
        raise ConfigError(f"{out}: a file is there that fcn did not write; give another name with --out")
    shown_images = save_gallery(out, datasets, options.count)
    for note in dict.fromkeys(note for _, part in datasets for note in part.notes):
        print(shown(note))
    print(f"{shown_images} of {sum(len(part) for _, part in datasets)} images, with their labels: {out}")
    return 1 if unusable else 0
