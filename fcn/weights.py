"""Weight files: safetensors that carry, as JSON in their header, everything needed to use them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .models import FCN, ModelConfig, build_model
from .preprocessing import Preprocessing

FORMAT = "fcn-weights-1"
# All of the header is under one key: safetensors writes several in random order, and equal networks give equal files.
METADATA_KEY = "fcn"


@dataclass
class Weights:
    """A network ready for use, and what its inputs and outputs mean."""

    model: FCN
    classes: list[str]
    palette: list[tuple[int, int, int]]
    preprocessing: Preprocessing
    extra: dict[str, str]


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
    path = Path(path)
    header = _Header(model.config, list(classes), [(r, g, b) for r, g, b in palette], preprocessing, dict(extra or {}))
    header.check()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata={METADATA_KEY: header.to_json()})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """Reads a file of ``save_weights``; the model is on the CPU and in evaluation mode.

    Raises ``FileNotFoundError``, or ``ValueError`` naming the file and what is wrong with it. Nothing is unpickled.
    """
    path = Path(path)
    metadata, tensors = _read_safetensors(path)
    if METADATA_KEY not in metadata:
        raise ValueError(f"{path}: not a weight file of this program: it has no {METADATA_KEY!r} in its header")
    try:
        header = _Header.from_json(metadata[METADATA_KEY])
        header.check()
        # No memory, no random numbers: every parameter comes from the file.
        with torch.device("meta"):
            model = build_model(header.model)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: damaged header: {type(error).__name__}: {error}") from error
    _check_tensors(path, tensors, model.state_dict())
    model.load_state_dict(tensors, assign=True)
    return Weights(model.eval(), header.classes, header.palette, header.preprocessing, header.extra)


def load_pretrained_backbone(model: FCN, path: str | os.PathLike[str]) -> None:
    """Fills the trunk of ``model`` from a torchvision VGG classifier: a ``.safetensors`` or ``.pth`` state dict.

    The fully connected layers become fc6 and fc7; the ImageNet scores are left out. Use ``preprocessing.IMAGENET`` with
    such weights. Raises ``FileNotFoundError``, or ``ValueError`` naming the file and every tensor that does not fit.
    """
    path = Path(path)
    source = _read_safetensors(path)[1] if path.suffix == ".safetensors" else _read_state_dict(path)
    wanted = model.backbone.state_dict()
    tensors = {}
    for theirs, ours in _torchvision_names(model).items():
        for part in ("weight", "bias"):
            tensor = source.get(f"{theirs}.{part}")
            if tensor is None:
                continue
            name = f"{ours}.{part}"
            if name in wanted and theirs.startswith("classifier") and tensor.numel() == wanted[name].numel():
                tensor = tensor.reshape(wanted[name].shape)  # (out, in * k * k): channels, rows, columns.
            tensors[name] = tensor
    _check_tensors(path, tensors, wanted)
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{path}: values that are not finite in {', '.join(broken)}")
    model.backbone.load_state_dict(tensors)


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
        if self.preprocessing.channels != self.model.in_channels:
            raise ValueError(
                f"the network takes {self.model.in_channels} channels and its preprocessing gives "
                f"{self.preprocessing.channels}"
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


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return metadata, load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        source = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged pickles raise errors of every kind.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a PyTorch file of plain tensors: {reason}") from error
    tensors = {k: v for k, v in source.items() if isinstance(v, Tensor)} if isinstance(source, dict) else {}
    if not tensors:
        raise ValueError(f"{path}: not a state dict: it holds no named tensors")
    return tensors


def _check_tensors(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    problems = []
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    if missing:
        problems.append(f"missing: {', '.join(missing)}")
    if unexpected:
        problems.append(f"unexpected: {', '.join(unexpected)}")
    problems += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        raise ValueError(f"{path}: the tensors do not fit the network: {'; '.join(problems)}")


def _torchvision_names(model: FCN) -> dict[str, str]:
    """torchvision's names of the trunk's layers: it numbers convolutions, ReLUs and poolings in one sequence."""
    names = {}
    index = 0
    for layer in model.trunks[""].layers:
        if layer.kind == "pool":
            index += 1
        elif layer.name.startswith("conv"):
            names[f"features.{index}"] = layer.name
            index += 2
    return {**names, "classifier.0": "fc6", "classifier.3": "fc7"}
