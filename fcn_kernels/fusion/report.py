"""What was fused, what had to be made, and why."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch

_LIBRARIES = tuple(f"{Path(file).parent}{os.sep}" for file in (torch.__file__, __file__))


@dataclass
class Report:
    """Counts of what happened, by what was asked and, where nothing was fused, why and by which line of code.

    ``fused``: answered by an operator. ``made``: upsampled scores that had to be made in full. ``left``: calls of
    ``F.interpolate`` that were left to PyTorch.
    """

    fused: Counter[str] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        lines = []
        for title, counts in (
            ("fused", self.fused),
            ("made in full", self.made),
            ("interpolate left to PyTorch", self.left),
        ):
            lines.append(f"{title}: {'' if counts else 'nothing'}".rstrip())
            lines += [f"  {count} x {what}" for what, count in counts.most_common()]
        return "\n".join(lines)


_report = Report()
_lock = threading.Lock()


def snapshot() -> Report:
    with _lock:
        return Report(Counter(_report.fused), Counter(_report.made), Counter(_report.left))


def clear() -> None:
    with _lock:
        for counts in (_report.fused, _report.made, _report.left):
            counts.clear()


def count_fused(what: str) -> None:
    with _lock:
        _report.fused[what] += 1


def count_made(what: str) -> None:
    with _lock:
        _report.made[f"{what}, at {_caller()}"] += 1


def count_left(why: str) -> None:
    with _lock:
        _report.left[f"{why}, at {_caller()}"] += 1


def _caller() -> str:
    """File and line of the innermost code that is neither PyTorch's nor this package's."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARIES):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
