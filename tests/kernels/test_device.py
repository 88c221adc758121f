"""What the CUDA module asks of CUDA, against one that refuses: csrc/common/device.h and tests/kernels/fake_cuda."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER = shutil.which("g++") or shutil.which("c++")
HERE = Path(__file__).parent
LAUNCH = "launch 3 64 {} 7 2.500000"
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("device") / "device"
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{HERE / 'fake_cuda'}"]
    subprocess.run([str(COMPILER), *options, str(HERE / "device.cpp"), "-o", str(path)], check=True)
    return path


def run(program: Path, device: int, shared: int, refused: str = "") -> tuple[list[str], str, str]:
    """What CUDA was asked to do, the error, and what CUDA holds afterwards."""
    said = subprocess.run([program, str(device), str(shared), refused], capture_output=True, text=True, check=True)
    *asked, error, left, shared_of_device_0 = said.stdout.splitlines()
    assert shared_of_device_0 == "most shared: 232448"
    return asked, error.removeprefix("error: "), left


def test_the_current_device_is_left_alone(program: Path) -> None:
    """Setting it would make a context on a GPU that the process may not use."""
    assert run(program, 0, 0) == ([LAUNCH.format(0)], "none", "left behind: 0, device 0")


def test_another_device_is_current_afterwards(program: Path) -> None:
    asked = ["device 1", LAUNCH.format(1024), "device 0"]
    assert run(program, 1, 1024) == (asked, "none", "left behind: 0, device 0")


def test_a_device_that_cannot_be_set(program: Path) -> None:
    error = "changing to device 1: invalid argument"
    assert run(program, 1, 0, "cudaSetDevice") == (["device 1"], error, "left behind: 0, device 0")


def test_more_shared_memory_than_usual_is_asked_for(program: Path) -> None:
    asked = ["shared memory 65536", LAUNCH.format(65536)]
    assert run(program, 0, 65536) == (asked, "none", "left behind: 0, device 0")


@pytest.mark.parametrize("refused", ["cudaFuncSetAttribute", "cudaLaunchKernel"])
def test_a_refusal_is_told_once(program: Path, refused: str) -> None:
    """Named, nothing is started, the device is the one before, and PyTorch does not find the error again."""
    asked, error, left = run(program, 1, 65536, refused)
    assert error == "launching the_kernel: invalid argument"
    assert left == "left behind: 0, device 0"
    assert asked[-1] == "device 0"
    assert (LAUNCH.format(65536) in asked) == (refused == "cudaLaunchKernel")
