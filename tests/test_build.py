"""What an installation compiles: the CUDA kernels where a GPU is seen, for that one, and elsewhere only on request."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import setuptools
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parents[1]

DRIVER = """
static const int capabilities[] = {CAPABILITIES, 0};
extern "C" int cuInit(unsigned) { return FAILS; }
extern "C" int cuDeviceGetCount(int* n) { for (*n = 0; capabilities[*n]; ++*n) {} return 0; }
extern "C" int cuDeviceGet(int* device, int index) { *device = 40 + index; return 0; }
extern "C" int cuDeviceGetAttribute(int* value, int attribute, int device) {
  int capability = capabilities[device - 40];
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : -1;
  return 0;
}
"""


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py defines, without its running."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    return runpy.run_path(str(ROOT / "setup.py"))


@pytest.mark.parametrize(
    ("capabilities", "fails", "seen"),
    [("90,80,90", 0, [80, 90]), ("121", 0, [121]), ("0", 0, []), ("90", 100, [])],
    ids=["three", "one", "none", "no_device"],
)
def test_gpus_are_those_that_the_driver_shows(tmp_path: Path, capabilities: str, fails: int, seen: list[int]) -> None:
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    source = tmp_path / "driver.cpp"
    source.write_text(DRIVER.replace("CAPABILITIES", capabilities).replace("FAILS", str(fails)))
    command = [compiler, "-shared", "-fPIC", str(source), "-o", str(tmp_path / "libcuda.so.1")]
    subprocess.run(command, check=True)
    look = (
        "import runpy, setuptools; setuptools.setup = lambda **_: None\n"
        f"print(runpy.run_path({str(ROOT / 'setup.py')!r})['visible_gpus']())"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(seen)


AUTO: dict[str, str] = {}


@pytest.mark.parametrize(
    ("given", "gpus", "nvcc", "cuda", "archs", "said"),
    [
        (AUTO, [], True, "OFF", None, "left out: no GPU is seen here. FCN_KERNELS_CUDA=ON compiles them"),
        (AUTO, [90], True, "ON", "90", "for 90"),
        (AUTO, [75, 80, 120], True, "ON", "80,120", "for 80,120"),
        ({"FCN_KERNELS_CUDA": "AUTO", "FCN_KERNELS_CUDA_ARCHS": "80"}, [90], True, "ON", "80", "for 80"),
        (AUTO, [90], False, "OFF", None, "left out: a GPU is here, and no CUDA compiler"),
        (AUTO, [75], True, "OFF", None, "compute capability 8.0 or more, and here is 7.5"),
        ({"FCN_KERNELS_CUDA": "ON"}, [], False, "ON", None, ""),
        ({"FCN_KERNELS_CUDA": "OFF"}, [90], True, "OFF", None, ""),
    ],
)
def test_auto_compiles_for_the_gpus_that_are_here(
    build: dict[str, Any],
    given: dict[str, str],
    gpus: list[int],
    nvcc: bool,
    cuda: str,
    archs: str | None,
    said: str,
) -> None:
    options, line = build["cuda_options"]({"FCN_KERNELS_EMULATOR": "ON", **given}, gpus, nvcc)
    assert options["FCN_KERNELS_CUDA"] == cuda
    assert options.get("FCN_KERNELS_CUDA_ARCHS") == archs
    assert options["FCN_KERNELS_EMULATOR"] == "ON"
    assert said in line
    assert bool(line) == bool(said)
    assert "\n" not in line


def test_another_word_is_refused(build: dict[str, Any]) -> None:
    with pytest.raises(CompileError, match="FCN_KERNELS_CUDA must be AUTO, ON or OFF, got 'on'"):
        build["cuda_options"]({"FCN_KERNELS_CUDA": "on"}, [], True)
