"""Networks trained under different settings and scored on the same images, for experiments."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from ..arguments import count
from ..evaluation.metrics import Metrics
from ..evaluation.tables import COLUMNS
from ..inference.predictor import Predictor

# What reads and runs recipes takes seconds to import: only for those who do.
if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..data import SegmentationDataset
    from ..recipes.config import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every experiment on labeled images."""
    parser.add_argument(
        "--data",
        default="demo",
        metavar="RECIPE",
        help="demo, or a recipe whose data, network and solver are used (default: demo, which downloads nothing)",
    )
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys of that recipe: data.root=DIR")


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every experiment that trains."""
    add_arguments(parser)
    parser.add_argument("--epochs", type=count, help="of each network (default: those of the recipe)")
    parser.add_argument("--size", type=count, help="height and width of training crops (default: the recipe's)")
    parser.add_argument("--runs", metavar="DIR", help="keep the training runs here; finished ones are not repeated")


def recipe_of(options: argparse.Namespace) -> Recipe:
    """The recipe that ``--data``, ``--set``, ``--device`` and, where there are such options, the others ask for."""
    from ..demo import DEMO_RECIPE
    from ..recipes.config import load_recipe

    path = DEMO_RECIPE if options.data == "demo" else Path(options.data)
    recipe = load_recipe(path, [f"--{pair}" for pair in options.set])
    accelerator: Literal["gpu", "cpu"] = "gpu" if options.device.startswith("cuda") else "cpu"
    recipe = replace(recipe, trainer=replace(recipe.trainer, accelerator=accelerator))
    if getattr(options, "epochs", None):
        epochs = [options.epochs] * len(recipe.stages.epochs)
        recipe = replace(recipe, stages=replace(recipe.stages, epochs=epochs))
    if getattr(options, "size", None):
        augment = replace(recipe.data.augment, crop=(options.size, options.size))
        recipe = replace(recipe, data=replace(recipe.data, augment=augment))
    return recipe


def only_stage(recipe: Recipe, stride: int) -> Recipe:
    """The recipe with that stage alone. Raises ``ValueError`` if it has none of that stride."""
    stages = recipe.stages
    if stride not in stages.stride:
        raise ValueError(f"the recipe trains strides {stages.stride}; this experiment wants {stride} among them")
    index = stages.stride.index(stride)
    alone = replace(stages, stride=[stride], epochs=[stages.epochs[index]], lr=[stages.lr[index]])
    return replace(recipe, stages=alone)


@contextmanager
def run_folder(options: argparse.Namespace) -> Iterator[Path]:
    """Where runs are written: ``--runs``, or a folder that is gone afterwards."""
    if options.runs:
        yield Path(options.runs)
    else:
        with TemporaryDirectory(prefix="fcn_experiment_") as folder:
            yield Path(folder)


def run_once(recipe: Recipe, folder: Path) -> Path:
    """Train in ``folder`` unless a run by the same recipe has finished there; returns the folder.

    Raises ``ConfigError`` for a folder that holds another or an unfinished run.
    """
    from ..recipes.config import load_recipe, rooted
    from ..training.run import train
    from ..weights.files import BEST_FILE

    dataset_of_one_task(recipe, recipe.data.test_split)  # not known to be unfit only after hours
    recipe = replace(recipe, trainer=replace(recipe.trainer, run_dir=str(folder)))
    if not (folder / BEST_FILE).exists() or load_recipe(folder / "recipe.yaml") != rooted(recipe):
        train(recipe)
    return folder


def best_weights(run: Path, stride: int) -> Path:
    """The file of a stage."""
    from ..training.stage import stage_dir
    from ..weights.files import BEST_FILE

    return stage_dir(run, stride) / BEST_FILE


def score(recipe: Recipe, run: Path, stride: int, device: str) -> Metrics:
    """Of the best weights of a stage, on the test split."""
    predictor = Predictor(best_weights(run, stride), device, precision="float32")
    return predictor.evaluate(dataset_of_one_task(recipe, recipe.data.test_split), workers=recipe.data.workers)


def dataset_of_one_task(recipe: Recipe, split: str) -> SegmentationDataset:
    """Raises ``ValueError`` for data of several tasks: experiments compare scores of one."""
    dataset = recipe.data.dataset(split)
    if len(dataset.tasks) > 1:
        raise ValueError(f"experiments are for one task; {recipe.data.kind} data have {', '.join(dataset.tasks)}")
    return dataset


METRIC_COLUMNS = tuple(f"{name}, %" for name in COLUMNS.values())


def percentages(metrics: Metrics) -> list[float | None]:
    """In the order of ``METRIC_COLUMNS``; None where undefined."""
    values = [100 * getattr(metrics, key) for key in COLUMNS]
    return [value if value == value else None for value in values]


def described(recipe: Recipe) -> str:
    """A sentence of what was trained on what."""
    data, augment = recipe.data, recipe.data.augment
    images = len(data.dataset(data.train_split)), len(data.dataset(data.test_split))
    crop = f", crops of {augment.crop[0]} x {augment.crop[1]}" if augment.crop else ""
    given = recipe.model.pretrained or recipe.model.init_from
    if given:
        files = given.values() if isinstance(given, dict) else [given]
        start = f"starting from {' and '.join(Path(file).name for file in files)}"
    else:
        start = "from random weights, where the paper starts from a classifier of ImageNet"
    return (
        f"Trained here on {images[0]} images of the {data.kind} data{crop}, scored on {images[1]} of the split "
        f"'{data.test_split}': {recipe.model.backbone}, {start}; epochs {recipe.stages.epochs} at strides "
        f"{recipe.stages.stride}, seed {recipe.trainer.seed}. The paper's numbers are of VGG16 on PASCAL VOC."
    )


def draw_groups(axes: Axes, groups: Mapping[str, Sequence[float | None]], names: Sequence[str]) -> None:
    """A group of vertical bars for each of ``names``, one of each of ``groups`` in it."""
    width = 0.8 / len(groups)
    colors = ("#1f6fb4", "#8a8a8a", "#d1495b", "#e0a030")
    for index, (group, values) in enumerate(groups.items()):
        places = [place + (index - (len(groups) - 1) / 2) * width for place in range(len(names))]
        heights = [0.0 if value is None else value for value in values]
        axes.bar(places, heights, 0.9 * width, label=group, color=colors[index % len(colors)])
    axes.set_xticks(range(len(names)), names)
