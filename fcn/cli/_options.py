"""Options that several commands share."""

from __future__ import annotations

import argparse


def add_precision(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default=default,
        help="of the trunk; auto: bfloat16 where the CPU is built for it and the first image's labels agree with "
        f"float32 (default: {default})",
    )
