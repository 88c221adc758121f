"""How operators answer for a lazy tensor. An answer has the parameters of the torch functions it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .lazy import ANSWERS, Scores, Unanswered


def answers(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(answer: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                return answer(*args, **kwargs)
            except (TypeError, ValueError) as error:
                # Of the operators, or an argument that is unknown here. PyTorch answers, or raises its own.
                raise Unanswered(str(error)) from None

        for function in functions:
            ANSWERS[function] = checked
        return answer

    return register


def size_of(scores: Scores) -> str:
    return f"[{scores.coarse.shape[0]}, {scores.coarse.shape[1]}, {scores.grid.size[0]}, {scores.grid.size[1]}]"


def name_of(scores: Scores) -> str:
    return f"the {scores.function} of {size_of(scores)}" if scores.function else size_of(scores)


def class_dim(scores: Scores, dim: Any) -> int:
    """``dim``, counted from the front, if it is that of the classes."""
    front = 1 if scores.batched else 0
    if not isinstance(dim, int) or dim not in (front, -3):
        raise Unanswered(f"over dim {dim}")
    return front
