"""A module that runs another under ``fuse``."""

from __future__ import annotations

from typing import Any

from torch import nn

from .context import Context

_PREFIX = "module."


class Fused(nn.Module):
    """``module``, its forward pass under ``fuse``. State dicts are those of ``module``, and so are other attributes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with Context():
            return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def _without_prefix(fused: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    _rename(state, prefix + _PREFIX, prefix)


def _with_prefix(fused: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    _rename(state, prefix, prefix + _PREFIX)


def _rename(state: dict[str, Any], old: str, new: str) -> None:
    for key in [key for key in state if key.startswith(old)]:
        state[new + key.removeprefix(old)] = state.pop(key)
