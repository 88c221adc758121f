"""The model card of a network: what it is, how it is used, what it was trained on, how good it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..evaluation.tables import COLUMNS
from ..text import shown
from .files import Weights
from .hub import PREFIX

TASK = "image-segmentation"


def read_metrics(path: Path) -> dict[str, Any]:
    """A file of ``fcn evaluate --out``. Raises ``DataError`` for others."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        tasks = metrics.get("tasks", {"": metrics})
        numbers = [values[key] for values in tasks.values() for key in COLUMNS]
        if not all(value is None or isinstance(value, float) for value in numbers):
            raise ValueError("its metrics are no numbers")
        return {"data": str(metrics["data"]), "split": str(metrics["split"]), "images": int(metrics["images"])} | {
            "tasks": {task: {key: values[key] for key in COLUMNS} for task, values in tasks.items()}
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: no file of 'fcn evaluate --out': {type(error).__name__}: {error}") from None


def model_card(
    weights: Weights, repository: str, *, license: str = "", data: str = "", metrics: Mapping[str, Any] | None = None
) -> str:
    """Markdown with a header of the Hub's. ``license`` is one of the Hub's names, such as ``cc-by-4.0``; ``data``: what
    the network was trained on; ``metrics``: what ``read_metrics`` gives."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=metrics["data"],
            dataset_name=f"{metrics['data']} {task}".strip(),
            dataset_split=metrics["split"],
            metric_type=key,
            metric_value=value,
        )
        for task, values in (metrics["tasks"] if metrics else {}).items()
        for key, value in values.items()
        if metrics and value is not None
    ]
    header = ModelCardData(
        license=license or None,
        library_name="fcn-kernels",
        pipeline_tag=TASK,
        tags=["semantic-segmentation", "fully-convolutional-network"],
        model_name=repository if results else None,
        eval_results=results or None,
    )
    return "\n".join(["---", header.to_yaml(), "---", "", *_body(weights, repository, license, data, metrics)]) + "\n"


def _body(weights: Weights, repository: str, license: str, data: str, metrics: Mapping[str, Any] | None) -> list[str]:
    config = weights.model.config
    lines = [f"# {repository}", "", f"FCN-{config.stride}s on {config.backbone} (padding: {config.pad}), semantic"]
    lines += ["segmentation of images of any size: a label for each pixel.", "", "```python", "import fcn", ""]
    lines += [f'labels = fcn.Predictor("{PREFIX}{repository}")("PHOTO.jpg")', "```"]
    for task, meaning in weights.tasks.items():
        names = ", ".join(f"{index} `{shown(name)}`" for index, name in enumerate(meaning.classes))
        lines += ["", f"## Classes {task}".strip(), "", names]
    lines += ["", "## Metrics", ""]
    if metrics:
        lines += [f"On {metrics['images']} images of {metrics['data']}, {metrics['split']}, in percent.", ""]
        lines += [f"| | {' | '.join(COLUMNS.values())} |", f"|---|{'---:|' * len(COLUMNS)}"]
        for task, values in metrics["tasks"].items():
            cells = ["-" if values[key] is None else f"{100 * values[key]:.1f}" for key in COLUMNS]
            lines.append(f"| {task} | {' | '.join(cells)} |")
    else:
        lines.append("None were given.")
    if weights.extra:
        lines += ["", *(f"- {shown(key)}: {shown(value)}" for key, value in weights.extra.items())]
    lines += ["", "## Data", "", data or "Not said."]
    return [*lines, "", "## License", "", license or "Not said: ask before you use these weights."]
