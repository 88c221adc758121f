"""Compile-time parameters of Triton kernels: a table for each GPU, then the operator's heuristic; never a search.

``python -m fcn_kernels.tune`` writes ``tables/<name of the GPU>.json``: a list of ``{"operator", "kernel", "key",
"config"}``. A key holds everything that a kernel is compiled for, and the size of the problem in powers of two.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

TABLES = Path(__file__).parent / "tables"

Key = dict[str, Any]
Config = dict[str, int]
Entry = dict[str, Any]

# What the tuner tries, by (operator, kernel): it goes before table and heuristic.
_forced: dict[tuple[str, str], Config] = {}


def bucket(count: int) -> int:
    """``count`` as a power of two, rounded up: sizes of one bucket share a configuration."""
    return max(0, count - 1).bit_length()


def config(operator: str, kernel: str, heuristic: Callable[..., Config], device: torch.device, **key: Any) -> Config:
    """Block sizes, ``num_warps`` and ``num_stages`` of ``kernel``: from the GPU's table, else ``heuristic(**key)``.

    ``key`` holds every other compile-time parameter of the kernel, ``dtype``, and ``size`` as ``bucket`` gives it.
    """
    forced = _forced.get((operator, kernel))
    if forced is not None:
        return forced
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return _look_up(operator, kernel, heuristic, name, tuple(key.items()))


@functools.lru_cache(maxsize=4096)
def _look_up(
    operator: str, kernel: str, heuristic: Callable[..., Config], gpu: str, items: tuple[tuple[str, Any], ...]
) -> Config:
    key = dict(items)
    return nearest(table(gpu), operator, kernel, key) or heuristic(**key)


def nearest(entries: list[Entry], operator: str, kernel: str, key: Key) -> Config | None:
    """The configuration of the entry that differs from ``key`` only in size, and there by at most a factor of four."""

    def without_size(key: Key) -> Key:
        return {name: value for name, value in key.items() if name != "size"}

    def distance(entry: Entry) -> int:
        return abs(int(entry["key"]["size"]) - int(key["size"]))

    same = [
        entry
        for entry in entries
        if (entry["operator"], entry["kernel"]) == (operator, kernel)
        and without_size(entry["key"]) == without_size(key)
        and distance(entry) <= 2
    ]
    return dict(min(same, key=distance)["config"]) if same else None


def table_path(gpu: str, folder: Path = TABLES) -> Path:
    return folder / f"{gpu.replace(' ', '_').replace('/', '_')}.json"


@functools.cache
def table(gpu: str) -> list[Entry]:
    """The shipped table of the GPU of that name; empty where there is none."""
    path = table_path(gpu)
    return read_table(path) if gpu and path.exists() else []


def read_table(path: Path) -> list[Entry]:
    entries: list[Entry] = json.loads(path.read_text())
    for entry in entries:  # JSON makes lists of tuples
        key = entry["key"].items()
        entry["key"] = {name: tuple(value) if isinstance(value, list) else value for name, value in key}
    return entries


@contextmanager
def forced(operator: str, kernel: str, parameters: Config) -> Iterator[None]:
    """Within the context ``kernel`` runs with ``parameters``."""
    _forced[operator, kernel] = parameters
    try:
        yield
    finally:
        del _forced[operator, kernel]
