"""Builds the compiled kernels with CMake; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).parent.resolve()

# Environment variables that CMakeLists.txt explains. Here AUTO, the default of the first, becomes ON or OFF.
OPTIONS = ("FCN_KERNELS_CUDA", "FCN_KERNELS_CUDA_ARCHS", "FCN_KERNELS_EMULATOR")

# What the CUDA kernels need: their copies to shared memory and their matrix instructions.
OLDEST_CAPABILITY = 80


def tool(name: str) -> str:
    """The program of that name, from the Python package of that name if it is installed, else from PATH."""
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if found is None:
        raise CompileError(f"fcn-kernels needs {name} to build: pip install {name}")
    return found


def visible_gpus() -> list[int]:
    """Compute capabilities (80, 90, ...) of the GPUs that the driver shows here; none where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count, device, major, minor = (ctypes.c_int() for _ in range(4))
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    found = set()
    for index in range(count.value):
        driver.cuDeviceGet(ctypes.byref(device), index)
        for part, attribute in ((major, 75), (minor, 76)):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
            driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device)
        found.add(10 * major.value + minor.value)
    return sorted(found)


def cuda_options(given: dict[str, str], gpus: list[int], nvcc: bool) -> tuple[dict[str, str], str]:
    """``given`` with AUTO decided, and what there is to say of it.

    CUDA kernels take minutes for each kind of GPU, so AUTO compiles them for those that are here, if any.
    """
    choice = given.get("FCN_KERNELS_CUDA", "AUTO")
    if choice not in ("AUTO", "ON", "OFF"):
        raise CompileError(f"FCN_KERNELS_CUDA must be AUTO, ON or OFF, got {choice!r}")
    if choice != "AUTO":
        return given, ""
    usable = [capability for capability in gpus if capability >= OLDEST_CAPABILITY]
    if usable and nvcc:
        archs = given.get("FCN_KERNELS_CUDA_ARCHS", ",".join(map(str, usable)))
        return {**given, "FCN_KERNELS_CUDA": "ON", "FCN_KERNELS_CUDA_ARCHS": archs}, f"CUDA kernels for {archs}"
    if usable:
        why = "a GPU is here, and no CUDA compiler: put nvcc on PATH, or set CUDACXX"
    elif gpus:
        why = f"they need a GPU of compute capability {OLDEST_CAPABILITY / 10} or more, and here is {gpus[-1] / 10}"
    else:
        why = "no GPU is seen here"
    how = "FCN_KERNELS_CUDA=ON compiles them, for the GPUs of FCN_KERNELS_CUDA_ARCHS (80,90,100,120 unless set)"
    return {**given, "FCN_KERNELS_CUDA": "OFF"}, f"CUDA kernels are left out: {why}. {how}"


class CMakeBuild(build_ext):
    def build_extensions(self) -> None:
        """Builds all at once; keeps those that the options asked for, and none of an earlier build."""
        for ext in self.extensions:
            built = Path(self.get_ext_fullpath(ext.name))
            for stale in (built, ROOT / "fcn_kernels" / built.name):
                stale.unlink(missing_ok=True)
        self.run_cmake(Path(self.get_ext_fullpath(self.extensions[0].name)).parent.resolve())
        self.extensions = [ext for ext in self.extensions if Path(self.get_ext_fullpath(ext.name)).exists()]

    def run_cmake(self, output: Path) -> None:
        import pybind11

        if os.environ.get("CXX") is None and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise CompileError("fcn-kernels needs a C++17 compiler to build: install g++ or clang++, or set CXX")
        given = {name: os.environ[name] for name in OPTIONS if name in os.environ}
        nvcc = "CUDACXX" in os.environ or shutil.which("nvcc") is not None
        options, said = cuda_options(given, visible_gpus(), nvcc)
        if said:
            print(f"fcn-kernels: {said}", file=sys.stderr)
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        configure = [
            tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *(f"-D{name}={value.replace(',', ';')}" for name, value in options.items()),
        ]  # fmt: skip
        # A build folder remembers the tools of the environment that made it, which build isolation throws away.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        self.run_tool(configure, "configure")
        self.run_tool([tool("cmake"), "--build", str(build)], "compile")

    def run_tool(self, command: list[str], what: str) -> None:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if result.returncode == 0:
            return
        lines = result.stdout.splitlines()
        first = next((i for i, line in enumerate(lines) if "error" in line.lower()), max(0, len(lines) - 20))
        message = "\n".join(lines[first : first + 20])
        raise CompileError(f"fcn-kernels: could not {what} the C++ kernels with {command[0]}:\n{message}")


EXTENSIONS = [Extension(f"fcn_kernels.{name}", sources=[]) for name in ("_C", "_CUDA", "_EMULATOR")]

setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": CMakeBuild})
