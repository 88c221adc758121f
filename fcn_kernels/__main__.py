"""``python -m fcn_kernels``: versions, how the kernels were built, what can run here and, for the rest, why not."""

from __future__ import annotations

import platform

import numpy
import torch

from . import __version__
from .backend import BACKENDS, CPU_EXTENSION, why_not


def main() -> None:
    print(f"fcn-kernels {__version__}")
    print(f"  python {platform.python_version()} on {platform.machine()} {platform.system()}")
    print(f"  torch {torch.__version__}, numpy {numpy.__version__}")
    print(f"  torch threads: {torch.get_num_threads()}")
    print(f"  GPU: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'}")
    if CPU_EXTENSION is not None:
        for key, value in CPU_EXTENSION.build_info().items():
            print(f"  built with {key}: {value}")
        print(f"  instruction set: {CPU_EXTENSION.isa()} (this CPU has {', '.join(CPU_EXTENSION.supported_isas())})")
    print("backends")
    for backend in BACKENDS:
        reason = why_not(backend)
        print(f"  {backend:10} {'ready' if reason is None else f'not available: {reason}'}")


if __name__ == "__main__":
    main()
