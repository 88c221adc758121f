"""Builds the compiled kernels with CMake; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).parent.resolve()

# Environment variables that CMakeLists.txt explains.
OPTIONS = ("FCN_KERNELS_CUDA", "FCN_KERNELS_CUDA_ARCHS", "FCN_KERNELS_EMULATOR")


def tool(name: str) -> str:
    """The program of that name, from the Python package of that name if it is installed, else from PATH."""
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if found is None:
        raise CompileError(f"fcn-kernels needs {name} to build: pip install {name}")
    return found


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
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        configure = [
            tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *(f"-D{name}={os.environ[name].replace(',', ';')}" for name in OPTIONS if name in os.environ),
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
