"""What each command does: ``command(options, overrides)`` returns the exit code.

What takes seconds to import is imported where it is needed, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from .data import KINDS, Further, FurtherFolder
from .experiments import experiments, show, write


def train(options: argparse.Namespace, overrides: list[str]) -> int:
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


def evaluate(options: argparse.Namespace, overrides: list[str]) -> int:
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


def predict(options: argparse.Namespace, _: list[str]) -> int:
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


def info(options: argparse.Namespace, _: list[str]) -> int:
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


def convert(options: argparse.Namespace, _: list[str]) -> int:
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


def experiment(options: argparse.Namespace, _: list[str]) -> int:
    name = options.experiment
    result = experiments()[name].run(options)
    show(result)
    if options.out:
        given = {k: v for k, v in vars(options).items() if k not in ("command", "experiment", "run", "out")}
        for path in write(result, name, given, torch.device(options.device), Path(options.out)):
            print(f"wrote {path}")
    return 0


def data_check(options: argparse.Namespace, overrides: list[str]) -> int:
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


def demo(options: argparse.Namespace, _: list[str]) -> int:
    from .callbacks import Interrupted
    from .demo import demo

    try:
        demo(options.out)
    except Interrupted:
        print("\nInterrupted. 'fcn demo' starts anew.", file=sys.stderr)
        raise
    return 0
