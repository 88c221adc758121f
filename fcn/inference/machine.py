"""What the machine is and can do."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

import fcn_kernels

from ..errors import ConfigError


def cpu_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def bfloat16_instructions() -> str | None:
    """Instructions by which this CPU multiplies bfloat16 faster than float32, or None.

    Without them PyTorch computes bfloat16 in float32 and is slower than in float32 from the start.
    """
    if not torch.backends.mkldnn.is_available():
        return None
    flags = _cpuinfo("flags").split()
    return next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), None)


def describe(device: torch.device) -> dict[str, str | int]:
    """Machine, versions and date, ready for JSON."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        **gpu,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "bfloat16": bfloat16_instructions() or "none",
        "torch": torch.__version__,
        "fcn_kernels": fcn_kernels.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def _cpuinfo(field: str) -> str:
    """A field of the first processor; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next(
        (value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == field), ""
    )


def check_device(name: str) -> None:
    """Raises ``ConfigError`` unless ``name`` is a device that PyTorch has here: cpu, cuda, cuda:1."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # not compiled for it, no driver, no such device
        why = " ".join(str(error).split()).partition(". ")[0]
        raise ConfigError(f"device {name}: PyTorch does not have it here: {why}") from None


def out_of_memory(error: Exception) -> bool:
    """Whether this is the machine's or a device's memory that was not enough, of any of the libraries."""
    text = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in text for sign in ("allocate memory", "not enough memory", "out of memory", "could not create a memory")
    )
