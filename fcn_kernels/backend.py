"""Which implementation runs: the backends, why one cannot run, and the choice that ``auto`` makes."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

BACKENDS = ("reference", "cpu", "cuda", "triton")

# The choice of backend="auto" by device type: the first that can run. The reason stands beside each row. On devices of
# other types, which have no kernels here, the reference runs.
AUTO = {
    "cpu": ("cpu", "reference"),  # compiled C++ against eager and compiled PyTorch: bench/results/cpu.md
    "cuda": ("cuda", "triton", "reference"),  # not yet measured on a GPU
}
_OTHERS = "others"

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

# For tests on machines without a GPU: the CUDA kernels compiled for the emulator, Triton's own interpreter.
EMULATED = os.environ.get("FCN_KERNELS_EMULATE") == "1"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _load_extension(name: str) -> tuple[ModuleType | None, str]:
    """The compiled module and, where it cannot be loaded, the reason."""
    try:
        module = importlib.import_module(f"fcn_kernels.{name}")
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError):
            return (
                None,
                f"fcn_kernels.{name} was not built (run `pip install -e .`; FCN_KERNELS_* variables are in the README)",
            )
        if str(error).startswith("FCN_KERNELS_ISA"):  # the user's word, not to be passed over
            raise ValueError(str(error)) from None
        return None, f"fcn_kernels.{name} does not load: {error}"
    # How it reads tensors, without having been built against torch.
    exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    if exchange is None:
        reason = f"torch {torch.__version__} has no __dlpack_c_exchange_api__; torch 2.11 and later have it"
        return None, f"fcn_kernels.{name} cannot read tensors: {reason}"
    module.use_exchange_api(exchange)
    return module, ""


def _why_not_triton() -> str:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if INTERPRETED:
        return _why_not_interpreted(*map(importlib.metadata.version, ("triton", "numpy")))
    return ""


def _why_not_interpreted(triton: str, numpy: str) -> str:
    def release(version: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", version)[:2]]

    if release(triton) <= [3, 6] and release(numpy) >= [2, 4]:
        return f"the interpreter of triton {triton} does not run with numpy {numpy} (pip install 'numpy<2.4')"
    return ""


# torch is imported above, so that the extension shares the OpenMP pool that torch brings.
CPU_EXTENSION, _cpu_reason = _load_extension("_C")
CUDA_EXTENSION, _cuda_reason = _load_extension("_EMULATOR" if EMULATED else "_CUDA")

_reasons: dict[str, str] = {
    "reference": "",
    "cpu": _cpu_reason,
    "cuda": _cuda_reason,
    "triton": _why_not_triton(),
}
# The reference runs on any.
_device_types = {
    "cpu": ("cpu",),
    "cuda": ("cpu",) if EMULATED else ("cuda",),
    "triton": ("cuda", "cpu") if INTERPRETED else ("cuda",),
}
# GPU kernels leave float64 to the reference; the CPU's run it, so that gradients are checked on the kernels themselves.
_GPU_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_dtypes = {"reference": DTYPES, "cpu": DTYPES, "cuda": _GPU_DTYPES, "triton": _GPU_DTYPES}
_default = "auto"


def why_not(backend: str, device_type: str | None = None, dtype: torch.dtype | None = None) -> str | None:
    """The reason that ``backend`` cannot run (on that device type and dtype, if given), or None if it can."""
    if backend not in BACKENDS:
        return f"there is no such backend; there are {', '.join(BACKENDS)}"
    if _reasons[backend]:
        return _reasons[backend]
    if device_type is not None and device_type not in _device_types.get(backend, (device_type,)):
        return f"it runs on {' or '.join(_device_types[backend])} tensors, and these are on {device_type}"
    if dtype is not None and dtype not in _dtypes[backend]:
        return f"it has no kernels for {dtype}"
    return None


def _choice(backend: str, device_type: str, dtype: torch.dtype) -> str | None:
    for candidate in AUTO.get(device_type, ("reference",)) if backend == "auto" else (backend,):
        if why_not(candidate, device_type, dtype) is None:
            return candidate
    return None


# Every call chooses, so the answers are worked out once; what is not in here cannot run. Devices are told apart by
# ``is_cpu`` and ``is_cuda``: to make the name of a type costs more than the rest of the choice.
_choices = {
    (backend, device_type == "cpu", device_type == "cuda", dtype): choice
    for backend in ("auto", *BACKENDS)
    for device_type in (*AUTO, _OTHERS)
    for dtype in DTYPES
    if (choice := _choice(backend, device_type, dtype)) is not None
}


def _transformed() -> str | None:
    """What is at work that sees through plain PyTorch only, if anything is."""
    if torch.compiler.is_compiling():
        return "torch.onnx.export translates" if torch.onnx.is_in_onnx_export() else None
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace and torch.onnx.export(dynamo=False) record"
    if torch._C._are_functorch_transforms_active():
        return "torch.func transforms"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives go through"
    return None


def choose(operator: str, backend: str | None, x: Tensor) -> str:
    """The backend that runs ``operator`` on ``x``. An explicit choice that cannot raises ``ValueError``.

    Tracing, export to ONNX, ``torch.func`` and forward-mode derivatives get the reference from "auto".
    """
    if backend is None:
        backend = _default
    transformed = _transformed()
    if transformed is not None and backend != "reference":
        if backend == "auto":
            return "reference"
        raise ValueError(f"{operator}: {transformed} plain PyTorch only; use backend='reference', not {backend!r}")
    choice = _choices.get((backend, x.is_cpu, x.is_cuda, x.dtype))
    if choice is None:
        reason = why_not(backend, x.device.type, x.dtype)
        raise ValueError(f"{operator}: backend {backend!r} cannot run: {reason}")
    return choice


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


@cache
def implementation(operator: str, backend: str) -> Any:
    """The module ``fcn_kernels/ops/<operator>/<backend>.py``."""
    return importlib.import_module(f"fcn_kernels.ops.{operator}.{backend}")


_library: Any = torch.library.Library("fcn_kernels", "DEF")


def define_op(name: str, signature: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Register one dispatcher op per pass and return it.

    Cheaper per call than ``torch.library.custom_op``. ``run`` takes the choice of backend among its arguments, so one
    implementation serves every device. The op is transparent to autograd: what has a gradient is called from within a
    ``torch.autograd.Function``.
    """
    _library.define(f"{name}{signature}", tags=(torch.Tag.pt2_compliant_tag,))
    for key in ("CPU", "CUDA"):
        _library.impl(name, run, key)
    _library.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"fcn_kernels::{name}", fake, lib=_library)
    return getattr(torch.ops.fcn_kernels, name).default
