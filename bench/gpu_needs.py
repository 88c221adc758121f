"""Which packages bench/gpu.sh, or its rehearsal (--rehearse), lacks here. Exit status: 0, or 1 if some are missing."""

from __future__ import annotations

import importlib.util
import shutil
import sys

# What is imported, and the name of its distribution where that differs.
MODULES = {
    "build": ("setuptools", "pybind11"),
    "test": (
        "torch",
        "numpy",
        "triton",
        "pytest",
        "iniconfig",
        "pluggy",
        "hypothesis",
        "sortedcontainers",
        "expecttest",
        "xdist",
    ),
    "measure": ("rich", "markdown_it", "mdurl", "pygments", "tqdm", "matplotlib"),
}
TOOLS = {"build": ("cmake", "ninja", "nvcc"), "test": ("nvidia-smi", "compute-sanitizer")}
DISTRIBUTIONS = {"markdown_it": "markdown-it-py", "xdist": "pytest-xdist"}


def main() -> int:
    missing = [
        f"{DISTRIBUTIONS.get(name, name)} (to {purpose})"
        for purpose, names in MODULES.items()
        for name in names
        if importlib.util.find_spec(name) is None
    ]
    # A rehearsal has neither a GPU nor its tools.
    missing += [
        f"{name} (to {purpose}, a program)"
        for purpose, names in TOOLS.items()
        for name in names
        if "--rehearse" not in sys.argv and not shutil.which(name)
    ]
    print(f"missing: {', '.join(missing)}" if missing else "nothing is missing")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
