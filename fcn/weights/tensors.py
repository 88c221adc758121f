"""Named tensors from files of other programs, and how they are held against what a network wants."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from .caffemodel import read_caffemodel
from .foreign import check_not_foreign

Tensors = dict[str, Tensor]

# Checkpoints of training hold metrics as NumPy scalars, which PyTorch does not read unless told that they are harmless.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name before NumPy 2
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64")),
]


def read_tensors(path: Path) -> tuple[Tensors, str]:
    """``{"conv1_1.weight": ...}`` of a PyTorch, ``.safetensors``, ``.npz`` or ``.caffemodel`` file, in float32 where
    they are floating point, and the ``arch`` of a training checkpoint, else "".

    Nothing is executed. Raises ``FileNotFoundError``, or ``ValueError`` naming the file and what is wrong with it.
    """
    check_not_foreign(path)
    arch = ""
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path)[1]
    elif path.suffix == ".npz":
        tensors = _read_npz(path)
    elif path.suffix == ".caffemodel":
        tensors = _read_caffemodel(path)
    else:
        tensors, arch = _read_checkpoint(path)
    return _in_float32(tensors), arch


def read_safetensors(path: Path) -> tuple[dict[str, str], Tensors]:
    """The header's entries and the tensors, in float32 where they are floating point."""
    metadata = read_metadata(path)
    return metadata, _in_float32(load_file(path))


def _in_float32(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def read_metadata(path: Path) -> dict[str, str]:
    """The entries of a ``.safetensors`` file's header."""
    check_not_foreign(path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file: {error}") from error


def check_tensors(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """``ValueError`` naming every tensor that is missing, unexpected, of another shape or not finite."""
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
    problems += [
        f"{name} is of {found[name].dtype} instead of {tensor.dtype}"
        for name, tensor in wanted.items()
        if name in found and found[name].is_floating_point() != tensor.is_floating_point()
    ]
    if problems:
        raise ValueError(f"{path}: the tensors do not fit the network: {'; '.join(problems)}")
    broken = [name for name, tensor in found.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{path}: values that are not finite in {', '.join(broken)}")


def _read_checkpoint(path: Path) -> tuple[Tensors, str]:
    """A state dict, or a training checkpoint that holds one."""
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            source = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Damaged pickles raise errors of every kind, and advise to load them unsafely.
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"it holds a {foreign[1]}, which is more than tensors" if foreign else "it is damaged or something else"
        raise ValueError(
            f"{path}: not a PyTorch file of plain tensors: {why}; nothing of it was loaded. Where it is to be trusted, "
            "its own program can save the state_dict alone"
        ) from error
    arch = ""
    if isinstance(source, dict):
        arch = str(source.get("arch", ""))
        for key in ("model_state_dict", "state_dict"):
            source = source.get(key, source)
    tensors = {k: v for k, v in source.items() if isinstance(v, Tensor)} if isinstance(source, dict) else {}
    if not tensors:
        raise ValueError(f"{path}: not a state dict: it holds no named tensors")
    odd = [str(name) for name, t in tensors.items() if t.layout != torch.strided or t.is_quantized or t.is_meta]
    if odd or not all(isinstance(name, str) for name in tensors):
        raise ValueError(f"{path}: not a state dict: {', '.join(odd) or 'its names'} are no plain tensors by name")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}, arch


def _read_npz(path: Path) -> Tensors:
    """Arrays by names as Chainer writes them (``conv1_1/W``, ``conv1_1/b``), or ``conv1_1.weight``."""
    parts = {"W": "weight", "b": "bias"}
    tensors = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                layer, _, part = name.rpartition("/")
                key = f"{layer}.{parts[part]}" if part in parts else name
                tensors[key] = torch.from_numpy(np.ascontiguousarray(file[name]))
    except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a whole .npz file of numbers: {error}") from error
    return tensors


def _read_caffemodel(path: Path) -> Tensors:
    """Blobs as weight and bias; shapes padded to four dimensions, as V1 layers have them, lose the padding."""
    tensors = {}
    for layer, blobs in read_caffemodel(path).items():
        weight, *biases = (torch.from_numpy(blob) for blob in blobs)
        if weight.dim() == 4 and weight.shape[:2] == (1, 1):
            weight = weight.flatten(0, 2) if weight.shape[2] > 1 else weight.flatten()
        tensors[f"{layer}.weight"] = weight
        for name, bias in zip(("bias", *(f"blob{index}" for index in range(2, len(blobs)))), biases, strict=False):
            tensors[f"{layer}.{name}"] = bias.flatten()
    return tensors
