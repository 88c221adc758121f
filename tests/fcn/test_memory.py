"""Memory that is freed serves again while a network trains."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from fcn.training.memory import freed_memory_kept

def pages(times):
    "New pages while 64 MB are taken, written and freed so many times."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = pages(4)
with freed_memory_kept():
    pages(20)  # small blocks may lie in the way of the first ones
    kept = pages(4)
print(usual, kept)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="the C library is not glibc")
def test_freed_pages_serve_again() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    usual, kept = map(int, done.stdout.split())
    assert kept < usual / 4
