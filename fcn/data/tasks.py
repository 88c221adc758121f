"""Several tasks on one trunk, by name. One task is the case of a single entry, whose name is empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """What the labels of a task mean."""

    classes: list[str]
    palette: list[tuple[int, int, int]]


def classes_fit(given: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether data of ``given`` classes may be judged by a network of those that are ``wanted``: the same, or no more
    and only numbered, as of a folder that does not name them and may lack the last."""
    numbered = [f"class {index}" for index in range(len(given))]
    return list(given) == list(wanted) or (list(given) == numbered and len(given) <= len(wanted))


def underscored(*parts: str) -> str:
    """``semantic_mean_iu``: parts of a name, one of which may be a task's, with underscores between those not empty."""
    return "_".join(filter(None, parts))


def file_of(path: str | Path, task: str) -> Path:
    """``scores_semantic.csv`` for ``scores.csv``, of a single task the path itself."""
    path = Path(path)
    return path.with_stem(underscored(path.stem, task))


def split_labels(labels: Tensor) -> tuple[Tensor, ...]:
    """``[N, H, W]`` of each task, from ``[N, H, W]`` of one or ``[N, T, H, W]``."""
    return labels.unbind(1) if labels.dim() == 4 else (labels,)


def stack_labels(labels: Sequence[Tensor]) -> Tensor:
    """``[N, H, W]`` of one task, ``[N, T, H, W]`` of several: the form of a data set's targets."""
    return labels[0] if len(labels) == 1 else torch.stack(list(labels), 1)


def plain(values: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """For JSON: the values of a single task as they are; those of several by name, under ``tasks``."""
    return values[""] if "" in values else {"tasks": dict(values)}


def distinct(names: Sequence[str]) -> list[str]:
    """Names as keys: one that occurs again is followed by its number, so that none takes the place of another."""
    return [f"{name} ({index})" if name in names[:index] else name for index, name in enumerate(names)]
