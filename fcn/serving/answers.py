"""What is sent back: pictures of the labels, or all that is known of them as JSON."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from ..data.files import eight_bits, save_png
from ..data.labels import labels_image
from ..data.tasks import Task
from ..evaluation.overlays import colorize, overlay
from ..inference.predictor import Predictor
from ..text import shown

Output = Literal["labels", "overlay", "confidence", "json"]


class Labeled(NamedTuple):
    """A picture and one task's labels of it."""

    image: np.ndarray
    """uint8 ``[H, W, 3]``."""
    labels: np.ndarray
    """``[H, W]``."""
    confidence: np.ndarray
    """float32 ``[H, W]``."""
    task: Task


def labeled(predictor: Predictor, image: np.ndarray, labels: np.ndarray, confidence: np.ndarray) -> dict[str, Labeled]:
    """By task, from what the network gives: ``[(T, )H, W]``."""
    size = labels.shape[-2:]
    colors = eight_bits(image, predictor.preprocessing.levels)
    maps = zip(predictor.tasks.items(), labels.reshape(-1, *size), confidence.reshape(-1, *size), strict=True)
    return {name: Labeled(colors, own, sure, task) for (name, task), own, sure in maps}


def png_of(found: Labeled, output: Output) -> bytes:
    """``labels``: a palette PNG of class indices; ``overlay``: over the picture, with a legend; ``confidence``: gray,
    from black (0) to white (1)."""
    if output == "labels":
        return _png(labels_image(found.labels, found.task.palette))
    if output == "overlay":
        return _png(overlay(found.image, found.labels, found.task.classes, found.task.palette))
    gray = [np.rint(rows * 255).astype(np.uint8) for rows in _bands(found.confidence)]
    return _png(Image.fromarray(np.concatenate(gray)))


def description(found: Mapping[str, Labeled], picture: bool) -> dict[str, Any]:
    """Ready for JSON; images in it are PNG files, and ``picture`` a JPEG, in base64."""
    image = next(iter(found.values())).image
    told = {
        "width": image.shape[1],
        "height": image.shape[0],
        "tasks": [_task(name, each) for name, each in found.items()],
    }
    return {**told, "picture": _base64(_jpeg(image))} if picture else told


def classes_of(task: Task) -> list[dict[str, Any]]:
    return [
        {"index": index, "name": shown(name), "color": "#{:02x}{:02x}{:02x}".format(*color)}
        for index, (name, color) in enumerate(zip(task.classes, task.palette, strict=True))
    ]


def _task(name: str, found: Labeled) -> dict[str, Any]:
    classes = classes_of(found.task)
    counts, sums = np.zeros(len(classes), np.int64), np.zeros(len(classes))
    for labels, sure in zip(_bands(found.labels), _bands(found.confidence), strict=True):
        counts += np.bincount(labels.ravel(), minlength=len(classes))
        sums += np.bincount(labels.ravel(), sure.ravel(), minlength=len(classes))
    for each, count, total in zip(classes, counts.tolist(), sums.tolist(), strict=True):
        each.update(pixels=count, share=count / found.labels.size, confidence=total / count if count else None)
    told = {
        "name": name,
        "confidence": float(sums.sum()) / found.labels.size,
        "classes": classes,
        "labels": _base64(png_of(found, "labels")),
        "confidence_map": _base64(png_of(found, "confidence")),
    }
    if len(classes) > 256:  # the label map has no palette
        told["colors"] = _base64(_png(Image.fromarray(colorize(found.labels, found.task.palette))))
    return told


def _bands(pixels: np.ndarray) -> list[np.ndarray]:
    """Rows, about a million pixels at a time: NumPy makes copies of 8 bytes a pixel."""
    rows = max(1, (1 << 20) // pixels.shape[1])
    return [pixels[top : top + rows] for top in range(0, len(pixels), rows)]


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    save_png(file, image, compress_level=1)
    return file.getvalue()


def _jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=92)
    return file.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
