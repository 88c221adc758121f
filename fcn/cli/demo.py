"""train and score a small network on real images, in minutes on a CPU"""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="runs/demo", metavar="DIR")


def run(options: argparse.Namespace, _: list[str]) -> int:
    from ..demo import demo
    from ..errors import Interrupted

    try:
        demo(options.out)
    except Interrupted:
        print("\nInterrupted. 'fcn demo' starts anew.", file=sys.stderr)
        raise
    return 0
