"""What the figures were measured on, and how fast it can copy and multiply."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import fcn_kernels
from bench.timing import clock

ROOT = Path(__file__).resolve().parents[1]

# Half of PyTorch's time on large tensors can be page faults: glibc returns every large block to the system and takes it
# back page by page. This keeps blocks and asks for huge pages, which helps PyTorch most: the honest comparison.
TUNED = (
    f"glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold={8 * 2**30}:"
    f"glibc.malloc.trim_threshold={16 * 2**30}:glibc.malloc.top_pad={256 * 2**20}"
)


def tuned_environment() -> dict[str, str]:
    """Environment variables of the tuned allocator. Raises ``RuntimeError`` where the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        raise RuntimeError("the tuned allocator is that of glibc, and this system has another C library")
    return {"GLIBC_TUNABLES": TUNED}


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def commit() -> str | None:
    """The commit of the working tree, ``+changes`` where the code differs from it; None outside git."""
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", "fcn_kernels", "csrc", "bench", ":!bench/results")
    except OSError:
        return None
    return (revision + ("+changes" if changed else "")) or None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def describe(device: torch.device) -> dict[str, Any]:
    """Machine, versions, date and commit, ready for JSON."""
    machine: dict[str, Any] = {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "system": f"{platform.system()} {platform.release()}",
    }
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fcn_kernels": fcn_kernels.__version__,
        "libc": " ".join(platform.libc_ver()),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
        versions["cuda"] = str(torch.version.cuda)
    return {
        "device": device.type,
        "machine": machine,
        "versions": versions,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
    }


def _fastest(call: Any, device: torch.device, seconds: float = 0.5) -> float:
    timer = clock(device)
    timer.time(call)
    times, end = [timer.time(call) for _ in range(3)], time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(timer.time(call))
    return min(times)


@functools.cache
def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written both counted, of copying one large tensor onto another (the fastest)."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / _fastest(lambda: target.copy_(source), device)


@functools.cache
def multiply_add_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-adds per second: the better of a matrix product and a convolution of PyTorch's libraries (no TF32)."""
    # On a CPU a few milliseconds each, so that some of many run undisturbed.
    n, side = (8192, 64) if device.type == "cuda" else (640, 32)
    a, b, c = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(3))
    x = torch.randn(1, 256, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    product = n**3 / _fastest(lambda: torch.mm(a, b, out=c), device)
    convolution = 256 * 256 * 9 * (side - 2) ** 2 / _fastest(lambda: F.conv2d(x, w), device)
    return max(product, convolution)


def use_one_seed_and_full_precision() -> None:
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
