"""score weights on labeled images
The data are those of the recipe beside the weights, or chosen as in a recipe: --data.kind KIND --data.root FOLDER.
'fcn data kinds' lists the kinds.
"""

from __future__ import annotations

import argparse
import json
import sys

from ._options import add_max_megapixels, add_precision

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = "; of several tasks a file each, FILE_TASK"
    parser.add_argument("weights", help="a run folder, or a .safetensors file written by training")
    parser.add_argument("--split", help="train, val, test or another name (default: data.test_split)")
    parser.add_argument("--out", metavar="FILE.json", help="write the metrics as JSON too")
    parser.add_argument("--csv", metavar="FILE.csv", help=f"write pixels, accuracy and IU of each class{tasks}")
    parser.add_argument("--confusion", metavar="FILE.png", help=f"draw the confusion matrix{tasks}")
    parser.add_argument(
        "--trimap",
        nargs="+",
        type=int,
        default=(),
        metavar="PIXELS",
        help="mean IU of the pixels so close to a boundary too",
    )
    parser.add_argument(
        "--absent",
        choices=("exclude", "official", "zero"),
        default="exclude",
        help="what a class that no image shows counts in the means: nothing (exclude); an IU of 0 if it was predicted "
        "anywhere, as in the authors' program (official); or 0 (default: exclude)",
    )
    add_precision(parser, default="float32")
    add_max_megapixels(parser)


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    from rich.console import Console

    from ..data import files_of
    from ..data.opening import allow_megapixels
    from ..data.tasks import file_of, plain
    from ..evaluation.pictures import save_confusion
    from ..evaluation.tables import class_csv, class_table, metrics_as_dict, metrics_table, trimap_table
    from ..files import check_outputs, write_text
    from ..inference.predictor import Predictor
    from ..recipes.config import load_data_config, recipe_of
    from ..weights import weights_file

    allow_megapixels(options.max_megapixels)
    weights = weights_file(options.weights)
    data = load_data_config(overrides, recipe_of(weights))
    predictor = Predictor(weights, precision=options.precision)
    split = options.split or data.test_split
    dataset = data.dataset(split)
    outputs = [file_of(path, task) for path in (options.csv, options.confusion) if path for task in predictor.tasks]
    check_outputs([*filter(None, [options.out]), *outputs], [weights, *files_of(dataset, data.root)])
    for note in dataset.notes:
        print(f"fcn evaluate: {note}", file=sys.stderr)
    results = predictor.evaluate_tasks(dataset, trimap=options.trimap, absent=options.absent, workers=data.workers)
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
            "weights": str(weights),
            "data": data.kind,
            "split": split,
            "images": len(dataset),
            **plain({task: metrics_as_dict(metrics, classes[task]) for task, metrics in results.items()}),
        }
        write_text(options.out, json.dumps(result, indent=2))
    for task, metrics in results.items():
        if options.csv:
            write_text(file_of(options.csv, task), class_csv(metrics, classes[task]))
        if options.confusion:
            save_confusion(file_of(options.confusion, task), metrics.confusion, classes[task])
    return 0
