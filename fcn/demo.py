"""``fcn demo``: a small network trained in stages on real images, in a few minutes on a CPU."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from .data import SegmentationDataset
from .errors import ConfigError
from .evaluation.metrics import Metrics
from .evaluation.overlays import colorize
from .evaluation.pictures import save_curves, save_panels
from .evaluation.tables import class_table, metrics_as_dict, metrics_table
from .files import write_text
from .inference.predictor import Predictor
from .recipes.config import RECIPE_FILE, load_recipe
from .training.run import train
from .training.stage import LAST_FILE, RESULT_FILE, stage_dir
from .weights.files import BEST_FILE

MARK = ".fcn-demo"
"""A file of this name says that a folder is a demo's."""
WRITTEN = ("overlay.png", "curves.png", "metrics.json", BEST_FILE, RECIPE_FILE)
WRITTEN_BY_STAGES = (BEST_FILE, LAST_FILE, RESULT_FILE, "history.csv", "hparams.yaml", "events.out.tfevents.*")
DEMO_RECIPE = Path(__file__).with_name("demo.yaml")  # package data, so that an installed demo has it too


def demo(out: str | Path = "runs/demo", overrides: Sequence[str] = ()) -> dict[str, Metrics]:
    """Train FCN-32s, -16s, -8s by ``fcn/demo.yaml``, score them on held-out slices, write pictures to ``out``.

    An earlier demo in ``out`` is replaced, and what else lies there is left alone. Returns the test metrics of each
    stage. Raises ``ConfigError`` for a folder that holds files and no demo.
    """
    out, started = Path(out), time.monotonic()
    recipe = load_recipe(DEMO_RECIPE, (*overrides, "--trainer.run_dir", str(out)))
    _clear(out, [stage_dir(out, stride) for stride in recipe.stages.stride])
    console = Console()
    test_set = recipe.data.dataset(recipe.data.test_split)
    console.print(
        "Tissue in coronal MRI slices of one averaged head (ICBM152, in the nilearn package): trained on blocks of "
        f"slices, scored on {len(test_set)} slices of other blocks, two slices or more away. The numbers say how much "
        "detail each network keeps; they say nothing about other heads."
    )
    write_text(out / MARK, "The next 'fcn demo' replaces what this one wrote here.\n")
    train(recipe)

    weights = {f"FCN-{s}s": stage_dir(out, s) / BEST_FILE for s in recipe.stages.stride}
    predictors = {name: Predictor(path, precision="float32") for name, path in weights.items()}
    results = {name: predictor.evaluate(test_set, progress=False) for name, predictor in predictors.items()}
    console.print(metrics_table(results, title="Held-out slices"), class_table(results, test_set.classes))

    _save_panels(out / "overlay.png", test_set, predictors)
    histories = {f"FCN-{s}s": _history(stage_dir(out, s) / "history.csv") for s in recipe.stages.stride}
    save_curves(out / "curves.png", histories)
    summary: dict[str, Any] = {
        "data": "one averaged head (ICBM152, nilearn), held-out coronal slices",
        "test_slices": len(test_set),
        "seconds": round(time.monotonic() - started, 1),
        "stages": {name: metrics_as_dict(metrics, test_set.classes) for name, metrics in results.items()},
    }
    write_text(out / "metrics.json", json.dumps(summary, indent=2))
    console.print(f"{summary['seconds']:.0f} s. Written to {out}: overlay.png, curves.png, metrics.json, {BEST_FILE}")
    return results


def _clear(out: Path, stages: Sequence[Path]) -> None:
    """Removes what an earlier demo wrote to ``out``."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / MARK).is_file():
        raise ConfigError(f"--out: {out} holds files that no demo wrote; give a new or an empty folder")
    for folder, patterns in {out: WRITTEN, **dict.fromkeys(stages, WRITTEN_BY_STAGES)}.items():
        for pattern in patterns:
            for path in folder.glob(pattern):
                path.unlink()
    for folder in stages:
        with suppress(OSError):  # it was never made, or something else is in it
            folder.rmdir()


def _save_panels(path: Path, dataset: SegmentationDataset, predictors: dict[str, Predictor], rows: int = 4) -> None:
    """Image, truth and each network's labels for slices spread over the test set."""
    pictures, names = [], []
    for row in range(rows):
        sample = dataset[(2 * row + 1) * len(dataset) // (2 * rows)]
        image = sample["image"]
        labels = [sample["target"], *(predictor(image) for predictor in predictors.values())]
        pictures.append([image, *(colorize(each, dataset.palette) for each in labels)])
        names.append(sample["name"].replace("_", " "))
    save_panels(path, pictures, ["image", "truth", *predictors], dataset.classes, dataset.palette, names)


def _history(path: Path) -> list[dict[str, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
