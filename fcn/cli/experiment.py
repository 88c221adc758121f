"""an experiment of the paper: tables, JSON and a figure"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..experiments import EXPERIMENTS, experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = parser.add_subparsers(dest="experiment", required=True, metavar="NAME")
    for name, summary in EXPERIMENTS.items():
        names.add_parser(name, help=summary, description=summary, fill=partial(_add_own_arguments, name))


def _add_own_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    experiment(name).add_arguments(parser)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--out", metavar="DIR", help="write NAME.md, NAME.json and NAME.png here")


def run(options: argparse.Namespace, _: list[str]) -> int:
    import torch

    from ..experiments.result import show, write
    from ..inference.machine import check_device

    check_device(options.device)
    if options.out:
        Path(options.out).mkdir(parents=True, exist_ok=True)  # not known to be impossible only after hours
    name = options.experiment
    result = experiment(name).run(options)
    show(result)
    if options.out:
        given = {k: v for k, v in vars(options).items() if k not in ("command", "experiment", "out")}
        for path in write(result, name, given, torch.device(options.device), Path(options.out)):
            print(f"wrote {path}")
    return 0
