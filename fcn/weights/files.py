"""This program's weight files: safetensors that carry, as JSON in their header, everything needed to use them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..data.preprocessing import Preprocessing
from ..data.tasks import Task
from ..errors import ConfigError
from ..files import replacing
from ..networks.models import FCN, ModelConfig, build_model
from .hub import downloaded, is_address
from .tensors import check_tensors, read_safetensors

FORMAT = "fcn-weights-1"
# All of the header is under one key: safetensors writes several in random order, and equal networks give equal files.
METADATA_KEY = "fcn"
BEST_FILE = "best.safetensors"
"""The weights of a run, or of one of its stages, in its folder."""


@dataclass
class Weights:
    """A network ready for use, and what its inputs and outputs mean.

    ``classes`` and ``palette`` of several tasks are in a row.
    """

    model: FCN
    classes: list[str]
    palette: list[tuple[int, int, int]]
    preprocessing: Preprocessing
    extra: dict[str, str]

    def __repr__(self) -> str:
        return f"Weights({self.model.config.name})"

    @property
    def tasks(self) -> dict[str, Task]:
        """By name; that of a single one is empty."""
        names, colors = iter(self.classes), iter(self.palette)
        return {
            task: Task(list(islice(names, count)), list(islice(colors, count)))
            for task, count in self.model.config.task_classes.items()
        }


def save_weights(
    path: str | os.PathLike[str],
    model: FCN,
    *,
    classes: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    preprocessing: Preprocessing,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Writes ``model`` to ``path``, whole or not at all; folders are made as needed. Equal networks give equal files.

    ``classes`` and ``palette`` (RGB, 0 to 255) have one entry per class; ``extra`` is kept as it is. ``ValueError``
    where they do not fit the model.
    """
    header = _Header(model.config, list(classes), [(r, g, b) for r, g, b in palette], preprocessing, dict(extra or {}))
    header.check()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as partial:
        try:
            save_file(tensors, partial, metadata={METADATA_KEY: header.to_json()})
        except SafetensorError as error:  # a full disk
            raise OSError(str(error)) from None


def weights_file(path: str | os.PathLike[str]) -> Path:
    """``path``, the weights of the run whose folder it is, or of an address on the Hub the copy of them here.

    Raises ``ConfigError`` for a run without an end."""
    if is_address(path):
        return downloaded(str(path))
    path = Path(path)
    if not path.is_dir() or (path / BEST_FILE).is_file():
        return path / BEST_FILE if path.is_dir() else path
    stages = sorted(path.glob(f"*/{BEST_FILE}"), key=os.path.getmtime)
    if stages:
        raise ConfigError(f"{path}: this run has not come to its end; its best weights so far: {stages[-1]}")
    raise ConfigError(f"{path}: a folder, and no run's: it has no {BEST_FILE}; a file of weights is wanted")


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """Reads a file of ``save_weights``, or that of a run (``weights_file``); the model is on the CPU and in evaluation
    mode.

    ``path`` may be ``hf://user/model`` or ``hf://user/model@revision``: what ``fcn push`` put on the Hugging Face Hub.
    Raises ``FileNotFoundError``, or ``ValueError`` naming the file and what is wrong with it. Nothing is unpickled.
    """
    path = weights_file(path)
    metadata, tensors = read_safetensors(path)
    if METADATA_KEY not in metadata:
        raise ValueError(f"{path}: not a weight file of this program: it has no {METADATA_KEY!r} in its header")
    try:
        header = _Header.from_json(metadata[METADATA_KEY])
        header.check()
        # No memory, no random numbers: every parameter comes from the file.
        with torch.device("meta"):
            model = build_model(header.model)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged header: {type(error).__name__}: {error}") from error
    check_tensors(path, tensors, model.state_dict())
    model.load_state_dict(tensors, assign=True)
    return Weights(model.eval(), header.classes, header.palette, header.preprocessing, header.extra)


@dataclass(frozen=True)
class _Header:
    model: ModelConfig
    classes: list[str]
    palette: list[tuple[int, int, int]]
    preprocessing: Preprocessing
    extra: dict[str, str]

    def check(self) -> None:
        count = self.model.classes
        if len(self.classes) != count or len(self.palette) != count:
            given = f"{len(self.classes)} names and {len(self.palette)} colors"
            raise ValueError(f"the network has {count} classes, but {given} are given")
        for color in self.palette:
            if not all(isinstance(value, int) and 0 <= value <= 255 for value in color):
                raise ValueError(f"colors are three whole numbers from 0 to 255, got {color}")
        channels = self.model.in_channels * max(1, len(self.model.modalities))
        if self.preprocessing.channels != channels:
            raise ValueError(
                f"the network takes {channels} channels and its preprocessing gives {self.preprocessing.channels}"
            )

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> _Header:
        fields: dict[str, Any] = json.loads(text)
        if fields["format"] != FORMAT:
            raise ValueError(f"its format is {fields['format']!r}, this program reads {FORMAT!r}")
        options = fields["preprocessing"]
        options.update(mean=tuple(options["mean"]), std=tuple(options["std"]))
        return cls(
            ModelConfig(**fields["model"]),
            [str(name) for name in fields["classes"]],
            [(r, g, b) for r, g, b in fields["palette"]],
            Preprocessing(**options),
            {str(key): str(value) for key, value in fields["extra"].items()},
        )
