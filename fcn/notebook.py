"""What a notebook calls: training and scoring, as the commands do them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .evaluation.metrics import Metrics

# What takes time to import waits until it is needed, as in commands.


def train(source: str | Path, *, minutes: float = 10.0, keys: Mapping[str, Any] | None = None) -> Path:
    """Train on a folder of images and masks for about ``minutes``, or by a recipe (its file, or the name of one that
    comes along), as ``fcn train`` does. Returns the run's folder, which has ``report.html`` and stands for its weights.

    ``keys``: those of a recipe that are to be others, ``{"trainer.run_dir": "runs/a", "stages.epochs": [20, 20, 40]}``.
    Raises ``ConfigError`` and ``DataError`` for what cannot be used, ``NotFiniteError`` for a loss that is no number.
    """
    from .recipes.config import load_recipe
    from .training.automatic import recipe_for
    from .training.ending import write_page
    from .training.run import train as train_by

    overrides = _overrides(keys)
    recipe = recipe_for(Path(source), minutes, overrides, print) if Path(source).is_dir() else None
    run_dir = train_by(recipe or load_recipe(source, overrides), draw=True).parent
    write_page(run_dir)
    return run_dir


def evaluate(
    weights: str | Path, split: str | None = None, *, keys: Mapping[str, Any] | None = None
) -> Metrics | dict[str, Metrics]:
    """Scores on the images of the recipe beside the weights, as ``fcn evaluate`` does: of its test split, or ``split``.

    ``weights``: a run's folder or a file. ``keys``: ``{"data.kind": "folder", "data.root": "OTHERS"}``, other images.
    Of a network of several tasks the metrics of each, by name. Raises ``ConfigError`` and ``DataError``.
    """
    from .inference.predictor import Predictor
    from .recipes.config import load_data_config, recipe_of
    from .weights import weights_file

    file = weights_file(weights)
    data = load_data_config(_overrides(keys), recipe_of(file))
    predictor = Predictor(file, precision="float32")
    found = predictor.evaluate_tasks(data.dataset(split or data.test_split), workers=data.workers)
    return found.get("", found)


def _overrides(keys: Mapping[str, Any] | None) -> list[str]:
    """As on the command line."""
    return [
        f"--{key}={value if isinstance(value, (str, Path)) else json.dumps(value)}"
        for key, value in (keys or {}).items()
    ]
