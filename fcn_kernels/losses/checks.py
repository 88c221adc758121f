"""Checks of arguments that several losses have."""

from __future__ import annotations

from ..loss import REDUCTIONS


def check_reduction(operator: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"{operator}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")


def check_at_least_zero(operator: str, argument: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        raise TypeError(f"{operator}: {argument} must be a number, got {value!r}")
    if not value >= 0:
        raise ValueError(f"{operator}: {argument} must be at least 0, got {value}")
