"""The command line: ``fcn train | evaluate | predict | info | convert | experiment | data | demo``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import commands
from .data import KINDS
from .experiments import experiments
from .presets import PRESETS

EPILOGS = {
    "train": "Every key of the recipe can be overridden: --stages.epochs [20,20,20] --data.root FOLDER. "
    "'fcn train --keys' lists them.",
    "evaluate": "The data are chosen as in a recipe: --data.kind KIND --data.root FOLDER. "
    f"Kinds: mri, {', '.join(KINDS)}.",
    "data": f"--data.kind KIND says which data set it is where the folder does not tell. Kinds: {', '.join(KINDS)}.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 some inputs failed, 2 wrong usage or unusable data, 130 interrupted."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in EPILOGS:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    # After parsing, so that --help and usage errors come at once.
    from .callbacks import Interrupted

    try:
        return int(options.run(options, rest))
    except Interrupted:
        return 130
    except (ValueError, TypeError, OSError) as error:  # ConfigError and DataError are ValueErrors
        if os.environ.get("FCN_TRACEBACK"):
            raise
        print(f"fcn {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fcn {options.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fcn", description="Fully convolutional networks for semantic segmentation.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = subparsers.add_parser("train", help="train by a recipe, or resume a run", epilog=EPILOGS["train"])
    train.add_argument("recipe", nargs="?", help="YAML file, such as recipes/camvid_fcn8s_small.yaml")
    train.add_argument("--resume", metavar="RUN_DIR", help="go on with an interrupted run")
    train.add_argument("--preset", choices=tuple(PRESETS), help="; ".join(f"{k}: {v}" for k, v in PRESETS.items()))
    train.add_argument("--keys", action="store_true", help="list every key of a recipe")
    train.set_defaults(run=commands.train)

    tasks = "; of several tasks a file each, FILE_TASK"
    evaluate = subparsers.add_parser("evaluate", help="score weights on labeled images", epilog=EPILOGS["evaluate"])
    evaluate.add_argument("weights", help="a .safetensors file written by training")
    evaluate.add_argument("--split", help="train, val, test or another name (default: data.test_split)")
    evaluate.add_argument("--out", metavar="FILE.json", help="write the metrics as JSON too")
    evaluate.add_argument("--csv", metavar="FILE.csv", help=f"write pixels, accuracy and IU of each class{tasks}")
    evaluate.add_argument("--confusion", metavar="FILE.png", help=f"draw the confusion matrix{tasks}")
    evaluate.add_argument(
        "--trimap",
        nargs="+",
        type=int,
        default=(),
        metavar="PIXELS",
        help="mean IU of the pixels so close to a boundary too",
    )
    _add_precision(evaluate, default="float32")
    evaluate.set_defaults(run=commands.evaluate)

    predict = subparsers.add_parser(
        "predict", help="label images: NAME.png, a palette PNG, and NAME_overlay.png; of several tasks NAME_TASK.png"
    )
    predict.add_argument("weights")
    predict.add_argument("images", nargs="+", help="images, videos, folders of them, or patterns such as 'a/**/*.png'")
    predict.add_argument("--out", required=True, metavar="DIR")
    beside = predict.add_mutually_exclusive_group()
    for kind, form in (("depth", "16-bit millimeters"), ("hha", "colors")):
        text = f"for networks of color and {kind}: a folder of {kind} images ({form}), of the same stem as their images"
        beside.add_argument(f"--{kind}", metavar="FOLDER", help=text)
    _add_precision(predict, default="auto")
    predict.add_argument(
        "--compile",
        action="store_true",
        help="compile the network anew for each size of image; weights are baked in",
    )
    predict.add_argument("--batch", type=int, default=1, metavar="N", help="so many images of one size at a time")
    predict.add_argument(
        "--tile", type=int, metavar="N", help="run larger images in tiles of N x N pixels; the labels stay the same"
    )
    predict.set_defaults(run=commands.predict)

    info = subparsers.add_parser("info", help="layers, geometry and parameters of networks; classes of weights")
    info.add_argument(
        "models", nargs="+", metavar="MODEL", help="a weights file, or a backbone's name: vgg16, alexnet ..."
    )
    info.add_argument("--stride", type=int, help="for a name: 32, 16 or 8 (default)")
    info.add_argument("--pad", help="for a name: same (default) or official")
    info.add_argument("--classes", type=int, help="for a name (default: 21)")
    info.set_defaults(run=commands.info)

    convert = subparsers.add_parser("convert", help="read the weights of another program: .pth, .caffemodel, .npz")
    convert.add_argument("source", help="an FCN of Caffe, pytorch-fcn or Chainer; a classifier of Caffe or torchvision")
    convert.add_argument("target", help="the .safetensors file to write")
    convert.add_argument("--classes", metavar="FILE", help="names of the classes, one in a line")
    convert.add_argument("--at-once", action=argparse.BooleanOptionalAction, help="FCN-8s trained with scaled skips")
    convert.add_argument("--pad", help="same or official (default: official for an FCN, same for a classifier)")
    convert.add_argument("--mean", type=float, nargs="+", help="of the channels, where it is not the published one")
    convert.add_argument(
        "--order", choices=("rgb", "bgr"), help="of the first three channels, where it is not the published one"
    )
    convert.set_defaults(run=commands.convert)

    experiment = subparsers.add_parser("experiment", help="an experiment of the paper: tables, JSON and a figure")
    names = experiment.add_subparsers(dest="experiment", required=True, metavar="NAME")
    for name, module in experiments().items():
        summary = (module.__doc__ or "").splitlines()[0]
        each = names.add_parser(name, help=summary, description=summary)
        module.add_arguments(each)
        each.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
        each.add_argument("--out", metavar="DIR", help="write NAME.md, NAME.json and NAME.png here")
        each.set_defaults(run=commands.experiment)

    data = subparsers.add_parser("data", help="what a data set on disk holds, and what is wrong with it")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="read every file: classes, void, values out of range, sizes, overlap of splits",
        epilog=EPILOGS["data"] + " Exit code 1: there are problems.",
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
    check.set_defaults(run=commands.data_check)

    demo = subparsers.add_parser("demo", help="train and score a small network on real images, in minutes on a CPU")
    demo.add_argument("--out", default="runs/demo", metavar="DIR")
    demo.set_defaults(run=commands.demo)
    return parser


def _add_precision(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default=default,
        help="of the trunk; auto: bfloat16 where the CPU is built for it and the first image's labels agree with "
        f"float32 (default: {default})",
    )
