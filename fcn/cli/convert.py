"""read the weights of another program: .pth, .caffemodel, .npz"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="an FCN of Caffe, pytorch-fcn or Chainer; a classifier of Caffe or torchvision")
    parser.add_argument("target", help="the .safetensors file to write")
    parser.add_argument("--classes", metavar="FILE", help="names of the classes, one in a line")
    parser.add_argument("--at-once", action=argparse.BooleanOptionalAction, help="FCN-8s trained with scaled skips")
    parser.add_argument("--pad", help="same or official (default: official for an FCN, same for a classifier)")
    parser.add_argument("--mean", type=float, nargs="+", help="of the channels, where it is not the published one")
    parser.add_argument(
        "--order", choices=("rgb", "bgr"), help="of the first three channels, where it is not the published one"
    )


def run(options: argparse.Namespace, _: list[str]) -> int:
    from rich.console import Console

    from ..data.listing import read_names
    from ..files import check_outputs
    from ..networks.summary import network_table
    from ..weights import convert, save_weights

    target = Path(options.target)
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the file to write must end in .safetensors")
    check_outputs([target], filter(None, [options.source, options.classes]))
    classes = None if options.classes is None else read_names(Path(options.classes))
    weights = convert(
        options.source,
        classes=classes,
        at_once=options.at_once,
        pad=options.pad,
        mean=options.mean,
        order=options.order,
    )
    save_weights(
        target,
        weights.model,
        classes=weights.classes,
        palette=weights.palette,
        preprocessing=weights.preprocessing,
        extra=weights.extra,
    )
    Console().print(network_table(weights.model))
    print(f"Written: {target}")
    return 0
