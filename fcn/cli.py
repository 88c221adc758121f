"""The command line: ``fcn train | evaluate | predict | info | convert | experiment | data | demo``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from .data import KINDS, Further, FurtherFolder
from .experiments import experiments, show, write
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
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train by a recipe, or resume a run", epilog=EPILOGS["train"])
    train.add_argument("recipe", nargs="?", help="YAML file, such as recipes/camvid_fcn8s_small.yaml")
    train.add_argument("--resume", metavar="RUN_DIR", help="go on with an interrupted run")
    train.add_argument("--preset", choices=tuple(PRESETS), help="; ".join(f"{k}: {v}" for k, v in PRESETS.items()))
    train.add_argument("--keys", action="store_true", help="list every key of a recipe")
    train.set_defaults(run=_train)

    tasks = "; of several tasks a file each, FILE_TASK"
    evaluate = commands.add_parser("evaluate", help="score weights on labeled images", epilog=EPILOGS["evaluate"])
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
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser(
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
    predict.set_defaults(run=_predict)

    info = commands.add_parser("info", help="layers, geometry and parameters of networks; classes of weights")
    info.add_argument(
        "models", nargs="+", metavar="MODEL", help="a weights file, or a backbone's name: vgg16, alexnet ..."
    )
    info.add_argument("--stride", type=int, help="for a name: 32, 16 or 8 (default)")
    info.add_argument("--pad", help="for a name: same (default) or official")
    info.add_argument("--classes", type=int, help="for a name (default: 21)")
    info.set_defaults(run=_info)

    convert = commands.add_parser("convert", help="read the weights of another program: .pth, .caffemodel, .npz")
    convert.add_argument("source", help="an FCN of Caffe, pytorch-fcn or Chainer; a classifier of Caffe or torchvision")
    convert.add_argument("target", help="the .safetensors file to write")
    convert.add_argument("--classes", metavar="FILE", help="names of the classes, one in a line")
    convert.add_argument("--at-once", action=argparse.BooleanOptionalAction, help="FCN-8s trained with scaled skips")
    convert.add_argument("--pad", help="same or official (default: official for an FCN, same for a classifier)")
    convert.add_argument("--mean", type=float, nargs="+", help="of the channels, where it is not the published one")
    convert.add_argument(
        "--order", choices=("rgb", "bgr"), help="of the first three channels, where it is not the published one"
    )
    convert.set_defaults(run=_convert)

    experiment = commands.add_parser("experiment", help="an experiment of the paper: tables, JSON and a figure")
    names = experiment.add_subparsers(dest="experiment", required=True, metavar="NAME")
    for name, module in experiments().items():
        summary = (module.__doc__ or "").splitlines()[0]
        each = names.add_parser(name, help=summary, description=summary)
        module.add_arguments(each)
        each.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
        each.add_argument("--out", metavar="DIR", help="write NAME.md, NAME.json and NAME.png here")
        each.set_defaults(run=_experiment)

    data = commands.add_parser("data", help="what a data set on disk holds, and what is wrong with it")
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
    check.set_defaults(run=_data_check)

    demo = commands.add_parser("demo", help="train and score a small network on real images, in minutes on a CPU")
    demo.add_argument("--out", default="runs/demo", metavar="DIR")
    demo.set_defaults(run=_demo)
    return parser


def _add_precision(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default=default,
        help="of the trunk; auto: bfloat16 where the CPU is built for it and the first image's labels agree with "
        f"float32 (default: {default})",
    )


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    from pytorch_lightning.utilities import rank_zero_only

    from .callbacks import Interrupted
    from .config import ConfigError, load_recipe, recipe_help
    from .training import resume, train

    say = rank_zero_only(print)  # one of several processes speaks
    if options.keys:
        print(recipe_help())
        return 0
    if (options.recipe is None) == (options.resume is None) or (options.resume and (overrides or options.preset)):
        raise ConfigError("give a recipe (with overrides), or --resume RUN_DIR alone")
    if options.resume:
        run_dir = options.resume
    else:
        recipe = load_recipe(options.recipe, overrides, options.preset)
        run_dir = recipe.trainer.run_dir
    try:
        weights = resume(run_dir) if options.resume else train(recipe)
    except Interrupted:
        say(f"\nInterrupted; the checkpoint is written. Go on with: fcn train --resume {run_dir}", file=sys.stderr)
        raise
    say(f"Best weights: {weights}")
    return 0


def _evaluate(options: argparse.Namespace, overrides: list[str]) -> int:
    from rich.console import Console

    from .config import load_data_config
    from .inference import Predictor
    from .report import class_csv, class_table, metrics_as_dict, metrics_table, save_text, trimap_table
    from .tasks import file_of, plain
    from .visualize import save_confusion

    data = load_data_config(overrides)
    predictor = Predictor(options.weights, precision=options.precision)
    split = options.split or data.test_split
    dataset = data.dataset(split)
    results = predictor.evaluate_tasks(dataset, trimap=options.trimap, workers=data.workers)
    classes = {task: meaning.classes for task, meaning in predictor.tasks.items()}
    rows = {f"FCN-{predictor.model.config.stride}s {task}".strip(): metrics for task, metrics in results.items()}
    console = Console()
    console.print(metrics_table(rows, f"{data.kind} {split}, {len(dataset)} images"))
    for (name, metrics), names in zip(rows.items(), classes.values(), strict=True):
        console.print(class_table({name: metrics}, names))
    if options.trimap:
        console.print(trimap_table(rows))
    if options.out:
        result = {
            "weights": str(options.weights),
            "data": data.kind,
            "split": split,
            "images": len(dataset),
            **plain({task: metrics_as_dict(metrics, classes[task]) for task, metrics in results.items()}),
        }
        save_text(options.out, json.dumps(result, indent=2))
    for task, metrics in results.items():
        if options.csv:
            save_text(file_of(options.csv, task), class_csv(metrics, classes[task]))
        if options.confusion:
            save_confusion(file_of(options.confusion, task), metrics.confusion, classes[task])
    return 0


def _predict(options: argparse.Namespace, _: list[str]) -> int:
    from .data import find_files, write_labels
    from .inference import Predictor
    from .tasks import underscored
    from .visualize import save_overlay

    predictor = Predictor(
        options.weights,
        precision=options.precision,
        compile=options.compile,
        tile=options.tile,
        batch=options.batch,
    )
    further = _further_folder(options, predictor.further)
    files = find_files(options.images)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    labeled = 0
    failed: list[Path] = []
    frames = _read(files, further, failed)
    while batch := list(islice(frames, options.batch)):
        for (name, image), labels in zip(batch, predictor([image for _, image in batch]), strict=True):
            colors = image[:, :, :3].astype(np.uint8)
            maps = labels.reshape(-1, *labels.shape[-2:])  # one for each task
            for (task, meaning), own in zip(predictor.tasks.items(), maps, strict=True):
                stem = underscored(name, task)
                write_labels(out / f"{stem}.png", own, meaning.palette)
                save_overlay(out / f"{stem}_overlay.png", colors, own, meaning.classes, meaning.palette)
            labeled += 1
    print(
        f"{len(files) - len(failed)} of {len(files)} files, {labeled} images labeled in {predictor.note}; "
        f"written to {out}"
    )
    return 1 if failed else 0


def _further_folder(options: argparse.Namespace, kind: Further | None) -> FurtherFolder | None:
    """What ``--depth`` or ``--hha`` gives, if that is what the network sees."""
    given = {"depth": options.depth, "hha": options.hha}
    if kind is not None and given[kind] is None:
        raise ValueError(f"{options.weights}: this network sees color and {kind}; say where that is: --{kind} FOLDER")
    wrong = [name for name, folder in given.items() if folder is not None and name != kind]
    if wrong:
        raise ValueError(f"{options.weights}: this network sees no images beside those it labels: no --{wrong[0]}")
    return None if kind is None else FurtherFolder(Path(given[kind]), kind)


def _read(files: Sequence[Path], further: FurtherFolder | None, failed: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and images of all files, with a progress bar; unreadable files are named and go to ``failed``."""
    from tqdm import tqdm

    from .data import DataError, read_frames

    for path in tqdm(files, desc="predict", unit="file", dynamic_ncols=True):
        try:
            for name, image in read_frames(path):
                yield name, image if further is None else further.joined_to(image, name)
        except DataError as error:
            failed.append(path)
            tqdm.write(f"fcn predict: skipped: {error}", file=sys.stderr)


def _info(options: argparse.Namespace, _: list[str]) -> int:
    import torch
    from rich.console import Console

    from .backbones import BACKBONES
    from .models import ModelConfig, build_model
    from .summary import network_table
    from .weights import load_weights

    console = Console()
    given = {
        name: getattr(options, name) for name in ("stride", "pad", "classes") if getattr(options, name) is not None
    }
    for name in options.models:
        if name in BACKBONES:
            with torch.device("meta"):
                console.print(network_table(build_model(ModelConfig(name, **given))))
            continue
        if given:
            raise ValueError(f"{name}: --{next(iter(given))} is for backbones ({', '.join(BACKBONES)}), not for a file")
        weights = load_weights(name)
        preprocessing = weights.preprocessing
        console.print(network_table(weights.model))
        for task, meaning in weights.tasks.items():
            console.print(f"{f'{task} classes'.strip():<14} {', '.join(meaning.classes)}")
        console.print(
            f"input          {preprocessing.channel_order}, mean {preprocessing.mean}, std {preprocessing.std}, "
            f"scale {preprocessing.scale:g}"
        )
        for key, value in weights.extra.items():
            console.print(f"{key:<14} {value}")
    return 0


def _convert(options: argparse.Namespace, _: list[str]) -> int:
    from rich.console import Console

    from .summary import network_table
    from .weights import convert, save_weights

    target = Path(options.target)
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the file to write must end in .safetensors")
    classes = None
    if options.classes is not None:
        lines = Path(options.classes).read_text(encoding="utf-8").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
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


def _experiment(options: argparse.Namespace, _: list[str]) -> int:
    name = options.experiment
    result = experiments()[name].run(options)
    show(result)
    if options.out:
        given = {k: v for k, v in vars(options).items() if k not in ("command", "experiment", "run", "out")}
        for path in write(result, name, given, torch.device(options.device), Path(options.out)):
            print(f"wrote {path}")
    return 0


def _data_check(options: argparse.Namespace, overrides: list[str]) -> int:
    from rich.console import Console

    from .config import load_data_config
    from .data import DataError, MissingSplitError, SegmentationDataset, recognize
    from .data.check import check, tables
    from .data.listing import list_file, read_names
    from .report import save_text

    if not any(word.split("=")[0] == "--data.kind" for word in overrides):
        overrides = [f"--data.kind={recognize(Path(options.root).expanduser())}", *overrides]
    data = load_data_config([f"--data.root={options.root}", *overrides])
    if data.kind not in KINDS:
        raise DataError(f"data.kind: {data.kind} has no files to check")
    splits: dict[str, SegmentationDataset | DataError] = {}
    absent = ""
    for split in options.splits or KINDS[data.kind].splits:
        try:
            splits[split] = data.dataset(split)
        except DataError as error:
            if options.splits or not isinstance(error, MissingSplitError):
                splits[split] = error
            absent = absent or str(error)
    if not splits:
        raise DataError(f"{options.root}: no split of a {data.kind} data set here (--data.kind, --splits): {absent}")
    report = check(splits, {name: read_names(list_file(name, Path(name))) for name in options.against})
    if options.out:
        result = {"data": data.kind, "root": options.root, **report.as_dict()}
        save_text(options.out, json.dumps(result, indent=2))
    Console().print(*tables(report, f"{data.kind}: {options.root}"))
    if not report.problems:
        print("No problems found.")
    return 1 if report.problems else 0


def _demo(options: argparse.Namespace, _: list[str]) -> int:
    from .callbacks import Interrupted
    from .demo import demo

    try:
        demo(options.out)
    except Interrupted:
        print("\nInterrupted. 'fcn demo' starts anew.", file=sys.stderr)
        raise
    return 0
