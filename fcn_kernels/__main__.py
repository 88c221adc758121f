"""``python -m fcn_kernels``: versions, how the kernels were built, what can run here and, for the rest, why not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform

import numpy
import torch

from . import __version__
from .backend import BACKENDS, CPU_EXTENSION, CUDA_EXTENSION, why_not


def main() -> None:
    print(f"fcn-kernels {__version__}")
    print(f"  python {platform.python_version()} on {platform.machine()} {platform.system()}")
    triton = importlib.metadata.version("triton") if importlib.util.find_spec("triton") else "not installed"
    print(f"  torch {torch.__version__}, numpy {numpy.__version__}, triton {triton}")
    print(f"  torch threads: {torch.get_num_threads()}")
    print(f"  GPU: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    for extension in (CPU_EXTENSION, CUDA_EXTENSION):
        if extension is not None:
            built = ", ".join(f"{key} {value}" for key, value in extension.build_info().items())
            print(f"  {extension.__name__}: {built}")
    if CPU_EXTENSION is not None:
        print(f"  instruction set: {CPU_EXTENSION.isa()} (this CPU has {', '.join(CPU_EXTENSION.supported_isas())})")
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    print("backends")
    for backend in BACKENDS:
        reason = why_not(backend)
        if reason is None and all(why_not(backend, device) for device in devices):
            reason = "PyTorch finds no GPU here"
        print(f"  {backend:10} {'ready' if reason is None else f'not available: {reason}'}")


if __name__ == "__main__":
    main()
