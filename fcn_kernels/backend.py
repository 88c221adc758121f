"""Which implementation runs: the backends, why one cannot run, and the choice that ``auto`` makes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

BACKENDS = ("reference", "cpu", "cuda", "triton")

# The choice of backend="auto" by device type: the first that can run. The reason stands beside each row.
AUTO = {
    "cpu": ("cpu", "reference"),  # compiled C++ against eager and compiled PyTorch: bench/results/cpu.md
    "cuda": ("cuda", "triton", "reference"),  # not yet measured on a GPU
}

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _load_extension(name: str) -> tuple[ModuleType | None, str]:
    """The compiled module and, where it cannot be loaded, the reason."""
    try:
        return importlib.import_module(f"fcn_kernels.{name}"), ""
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            return (
                None,
                f"fcn_kernels.{name} was not built (run `pip install -e .`; FCN_KERNELS_* variables are in the README)",
            )
        return None, f"fcn_kernels.{name} does not load: {error}"


# torch is imported above, so that the extension shares the OpenMP pool that torch brings.
CPU_EXTENSION, _cpu_reason = _load_extension("_C")

_reasons: dict[str, str] = {
    "reference": "",
    "cpu": _cpu_reason,
    "cuda": "no CUDA kernels in this version",
    "triton": "no Triton kernels in this version",
}
_device_types = {"reference": ("cpu", "cuda"), "cpu": ("cpu",), "cuda": ("cuda",), "triton": ("cuda",)}
_default = "auto"


def why_not(backend: str, device_type: str | None = None) -> str | None:
    """The reason that ``backend`` cannot run (on tensors of ``device_type``, if given), or None if it can."""
    if backend not in BACKENDS:
        return f"there is no such backend; there are {', '.join(BACKENDS)}"
    if _reasons[backend]:
        return _reasons[backend]
    if device_type is not None and device_type not in _device_types[backend]:
        return f"it runs on {' or '.join(_device_types[backend])} tensors, and these are on {device_type}"
    return None


def choose(operator: str, backend: str | None, device_type: str) -> str:
    """The backend that runs ``operator``. An explicit choice that cannot run raises ``ValueError`` with the reason."""
    if backend is None:
        backend = _default
    if backend != "auto":
        reason = why_not(backend, device_type)
        if reason is not None:
            raise ValueError(f"{operator}: backend {backend!r} cannot run: {reason}")
        return backend
    for candidate in AUTO.get(device_type, ("reference",)):
        if not _reasons[candidate]:
            return candidate
    raise ValueError(f"{operator}: no backend for tensors on {device_type}")


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Within the context every operator runs on ``backend`` ("auto" included) unless its call says otherwise.

    The setting is one for the whole process, not one per thread. Raises ``ValueError`` if the backend cannot run here.
    """
    global _default
    reason = why_not(backend) if backend != "auto" else None
    if reason is not None:
        raise ValueError(f"use_backend: backend {backend!r} cannot run: {reason}")
    before, _default = _default, backend
    try:
        yield
    finally:
        _default = before


def implementation(operator: str, backend: str) -> Any:
    """The module ``fcn_kernels/ops/<operator>/<backend>.py``."""
    return importlib.import_module(f"fcn_kernels.ops.{operator}.{backend}")


_library: Any = torch.library.Library("fcn_kernels", "DEF")


def define_op(name: str, signature: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Register one dispatcher op per pass and return it.

    Cheaper per call than ``torch.library.custom_op``. ``run`` takes the choice of backend among its arguments, so one
    implementation serves every device.
    """
    _library.define(f"{name}{signature}", tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _library.impl(name, run, key)
    torch.library.register_fake(f"fcn_kernels::{name}", fake, lib=_library)
    return getattr(torch.ops.fcn_kernels, name).default
