"""Where ``F.interpolate`` is put off."""

from __future__ import annotations

from contextlib import ContextDecorator
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from .interpolate import interpolate


class _Mode(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.interpolate and not torch.compiler.is_compiling() and not _within_another():
            func = interpolate
        return func(*args, **(kwargs or {}))


def _within_another() -> bool:
    """Whether contexts are nested and this is not the outermost, which is the one that answers."""
    return any(isinstance(mode, _Mode) for mode in _get_current_function_mode_stack())


class Context(ContextDecorator):
    """``with fuse():``; as a decorator, of each call."""

    def __init__(self) -> None:
        self._modes: list[_Mode] = []

    def __enter__(self) -> None:
        mode = _Mode()
        mode.__enter__()
        self._modes.append(mode)

    def __exit__(self, *error: Any) -> None:
        self._modes.pop().__exit__(*error)

    def _recreate_cm(self) -> Context:
        return Context()  # a decorated function may run in several threads at once
