"""What is compared: one module per operator.

Each has ``OPERATOR``, ``NEEDS`` (names of fcn_kernels) and ``CASES``. Adding an
operator is adding a module here; nothing lists them elsewhere.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

import fcn_kernels

Outputs = tuple[Tensor, ...]

# An exponential in multiply-adds: on a CPU rounding, a polynomial of degree 6 and the exponent; on a GPU there are 16
# units for exponentials beside 128 multiply-add lanes.
EXP_COST = {"cpu": 10, "cuda": 8}


@dataclass(frozen=True)
class Floor:
    """What any implementation must do at least: the model behind "measured / floor"."""

    bytes: int  # compulsory traffic: every input once, every output once
    operations: int  # vector instructions, each at the cost of one multiply-add
    exps: int = 0

    def total_operations(self, device: str) -> int:
        return self.operations + EXP_COST[device] * self.exps


@dataclass(frozen=True)
class Candidate:
    """One spelling of the operation; ``run()`` returns its results, the gradients included."""

    name: str
    run: Callable[[], Outputs]
    backend: str | None = None  # None: a baseline
    eager: bool = False  # the spelling that most people write
    expected: str = "exact"  # key of Problem.expected: some spellings differ at the border


def relative_error(outputs: Outputs, expected: Outputs) -> float:
    """The largest relative L2 error of the outputs."""
    errors = []
    for output, right in zip(outputs, expected, strict=True):
        if output.shape != right.shape:
            raise ValueError(f"shape {tuple(output.shape)} instead of {tuple(right.shape)}")
        errors.append(float((output.detach().double() - right).norm() / right.norm().clamp(min=1e-30)))
    return max(errors)


def label_error(outputs: Outputs, scores: Outputs) -> float:
    """How far the score of the chosen label is below the best, at the worst pixel (0: every label is right)."""
    (labels,), (right,) = outputs, scores
    if labels.shape != right[:, 0].shape:
        raise ValueError(f"shape {tuple(labels.shape)} instead of {tuple(right[:, 0].shape)}")
    chosen = right.gather(1, labels.long()[:, None])[:, 0]
    return float((right.amax(1) - chosen).max() / right.std())


@dataclass(frozen=True)
class Problem:
    """A case with its tensors made."""

    baselines: list[Candidate]
    ours: Callable[[str], Outputs]  # by backend
    expected: dict[str, Callable[[], Outputs]]  # plain PyTorch in float64
    floor: Floor
    ours_expected: str = "exact"
    tolerance: float = 1e-5
    error: Callable[[Outputs, Outputs], float] = relative_error

    def candidates(self, backends: Sequence[str]) -> list[Candidate]:
        ours = [Candidate(name, partial(self.ours, name), name, expected=self.ours_expected) for name in backends]
        return ours + self.baselines


@dataclass(frozen=True)
class Case:
    operator: str
    name: str
    mode: str  # "forward" or "forward + gradient"
    build: Callable[[torch.device], Problem] = field(repr=False)
    compute_dtype: torch.dtype = torch.float32
    small: bool = False  # part of --case small
    headline: bool = False  # part of the README
    compile: bool = True  # torch.compile takes part (in --case all)
    image_size: int | None = None  # not None: only memory is measured, for the plot of memory against image size

    @property
    def key(self) -> str:
        return f"{self.operator} | {self.name} | {self.mode}"


def absence(module: ModuleType) -> str | None:
    """Why the cases of an operator cannot run with the installed fcn_kernels, or None if they can."""
    missing = [name for name in module.NEEDS if not hasattr(fcn_kernels, name)]
    return f"fcn_kernels {fcn_kernels.__version__} has no {', '.join(missing)}" if missing else None


def modules() -> list[ModuleType]:
    return [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]


def find(key: str) -> Case:
    """The case with this key."""
    everything: list[Case] = [case for module in modules() for case in module.CASES]
    return next(case for case in everything if case.key == key)
