"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data import SegmentationDataset
    from ..errors import DataError
    from ..recipes.config import DataConfig


def add_precision(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default=default,
        help="of the trunk; auto: bfloat16 where the CPU is built for it and the first image's labels agree with "
        f"float32 (default: {default})",
    )


def add_max_megapixels(parser: argparse.ArgumentParser, default: float = 179) -> None:
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=default,
        metavar="N",
        help="read images of up to N million pixels; more are refused, since a small file may decode to gigabytes "
        f"(default: {default:g})",
    )


def load_splits(
    root: str, asked: Sequence[str] | None, overrides: list[str]
) -> tuple[DataConfig, dict[str, SegmentationDataset | DataError]]:
    """The data set in a folder, of the kind that ``--data.kind`` says or its files tell, and its splits: those that are
    asked for, or all that are there; an error in place of one that cannot be listed. Raises ``DataError`` for none."""
    from ..data import KINDS, recognize
    from ..errors import DataError, MissingSplitError
    from ..recipes.config import load_data_config

    if not any(word.split("=")[0] == "--data.kind" for word in overrides):
        overrides = [f"--data.kind={recognize(Path(root).expanduser())}", *overrides]
    data = load_data_config([f"--data.root={root}", *overrides])
    if data.kind not in KINDS:
        raise DataError(f"data.kind: {data.kind} has no files to check or show")
    splits: dict[str, SegmentationDataset | DataError] = {}
    absent = ""
    for split in asked or KINDS[data.kind].splits:
        try:
            splits[split] = data.dataset(split)
        except DataError as error:
            if asked or not isinstance(error, MissingSplitError):
                splits[split] = error
            absent = absent or str(error)
    if not splits:
        raise DataError(f"{root}: no split of a {data.kind} data set here (--data.kind, --splits): {absent}")
    return data, splits
