"""what a data set on disk holds, and what is wrong with it"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import _import, _show
from ._options import add_max_megapixels, load_splits

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "the kinds of data sets that --data.kind names"
    actions.add_parser("kinds", help=text, description=text)
    text = "read every file: classes, void, values out of range, sizes, overlap of splits"
    check = actions.add_parser(
        "check",
        help=text,
        description=text,
        epilog="--data.kind KIND says which data set it is where the folder does not tell ('fcn data kinds'). "
        "Exit code 1: there are problems.",
    )
    check.add_argument("root", help="folder of the data set")
    check.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: those of the data set that are there")
    check.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="LIST",
        help="lists of images that no split may hold: files, or seg11valid and voc2012val, which come along",
    )
    check.add_argument("--out", metavar="FILE.json", help="write everything as JSON too")
    add_max_megapixels(check)
    text = "masks and annotations of other tools, to folders of images and masks"
    more = (
        f"What the source is, is recognized. For masks that are not: {', '.join(f'--{key}' for key in _import.KEYS)}. "
        "Exit code 1: something was left out."
    )
    _import.add_arguments(actions.add_parser("import", help=text, description=text, epilog=more))
    text = "a page of images with their labels over them"
    _show.add_arguments(actions.add_parser("show", help=text, description=text))


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    run_action = {"check": _check, "import": _import.run, "show": _show.run, "kinds": _kinds}[options.action]
    return run_action(options, overrides)


def _kinds(_: argparse.Namespace, overrides: list[str]) -> int:
    from ..data import KINDS

    if overrides:
        raise ValueError(f"data kinds takes no options, got {' '.join(overrides)}")
    width = max(map(len, KINDS))
    for name, kind in KINDS.items():
        summary = (kind.load.__doc__ or "").strip().partition("\n")[0]
        print(f"{name:<{width}}  {summary}")
    return 0


def _check(options: argparse.Namespace, overrides: list[str]) -> int:
    from rich.console import Console

    from ..data import files_of
    from ..data.check import check
    from ..data.check_tables import tables
    from ..data.listing import list_file, read_names
    from ..data.opening import allow_megapixels
    from ..errors import DataError
    from ..files import check_outputs, write_text
    from ..text import shown

    allow_megapixels(options.max_megapixels)
    data, splits = load_splits(options.root, options.splits, overrides)
    against = {name: list_file(name, Path(name)) for name in options.against}
    parts = [split for split in splits.values() if not isinstance(split, DataError)]
    inputs = [path for split in parts for path in files_of(split, data.root)]
    check_outputs(filter(None, [options.out]), [*against.values(), *inputs])
    report = check(splits, {name: read_names(path) for name, path in against.items()})
    if options.out:
        result = {"data": data.kind, "root": options.root, **report.as_dict()}
        write_text(options.out, json.dumps(result, indent=2))
    Console().print(*tables(report, f"{data.kind}: {options.root}"))
    for note in dict.fromkeys(note for split in report.splits.values() for note in split.notes):
        print(shown(note))
    if not report.problems:
        print("No problems found.")
    return 1 if report.problems else 0
