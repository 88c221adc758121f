"""Memory that one step frees serves the next one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of mallopt(3), in glibc's malloc.h, with the defaults.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
DEFAULTS = {TRIM_THRESHOLD: 128 * 1024, MMAP_MAX: 65536}


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Meanwhile the C library does not give freed memory back to the system, and then all that is free.

    It would map each large tensor anew, and the system clear its pages, step by step: a quarter of a step's time on a
    CPU. Nothing happens where the C library is not glibc. The limits are set to glibc's defaults afterwards: what they
    were cannot be asked.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    library.mallopt(TRIM_THRESHOLD, -1)  # as large as can be
    library.mallopt(MMAP_MAX, 0)
    try:
        yield
    finally:
        for option, value in DEFAULTS.items():
            library.mallopt(option, value)
        library.malloc_trim(ctypes.c_size_t(0))
