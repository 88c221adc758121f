"""Peak memory that one call takes beyond its inputs (results included), in bytes.

On a CPU every call is measured in a process of its own, started from a server that has imported PyTorch and done
nothing else, with the default allocator: the high-water mark of the resident set (VmHWM, set back just before the
call) less the resident set before. Where the system has no such mark, the growth of ``ru_maxrss``. On a GPU:
PyTorch's allocator.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType

import torch

from bench import cases

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _kibibytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])


def _give_back_free_memory() -> None:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_of(call: Callable[[], object]) -> int:
    """Bytes by which the resident set grows at most during ``call``, in this process."""
    result = call()  # libraries load and compile at the first call
    del result
    _give_back_free_memory()
    try:
        CLEAR.write_text("5")
        before = _kibibytes("VmRSS")
        result = call()
        peak = _kibibytes("VmHWM")
    except OSError:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = call()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del result
    return max(0, peak - before) * 1024


def _measure(key: str, candidate: str, backends: tuple[str, ...]) -> int:
    problem = cases.find(key).build(torch.device("cpu"))
    return peak_of(next(c.run for c in problem.candidates(backends) if c.name == candidate))


class CpuMemory:
    """``memory(key, candidate, backends)``; a context manager that owns the processes."""

    def __enter__(self) -> CpuMemory:
        # The server must start with the default allocator.
        self._tunables = os.environ.pop("GLIBC_TUNABLES", None)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bench.memory"])
        self._pool = ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._tunables is not None:
            os.environ["GLIBC_TUNABLES"] = self._tunables

    def __call__(self, key: str, candidate: str, backends: tuple[str, ...]) -> int:
        return self._pool.submit(_measure, key, candidate, backends).result()


def cuda_peak_of(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before
