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


def add_max_megapixels(parser: argparse.ArgumentParser, default: float = 179) -> None:
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=default,
        metavar="N",
        help="read images of up to N million pixels; more are refused, since a small file may decode to gigabytes "
        f"(default: {default:g})",
    )
