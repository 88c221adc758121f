"""``python -m tests.oldest``: the oldest versions that pyproject.toml allows, as requirements for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "demo", "serve", "video", "test"


def oldest() -> list[str]:
    """Every floor as ``name==version``. torch is the tested release: an older one may not be had for CPUs alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = map(Requirement, [*project["dependencies"], *(each for name in EXTRAS for each in extras[name])])
    pinned = []
    for requirement in wanted:
        floors = [each.version for each in requirement.specifier if each.operator == ">="]
        if len(floors) != 1:
            raise ValueError(f"pyproject.toml: one floor (>=) is wanted for each requirement, got {requirement}")
        if requirement.name == "torch":
            pinned.append(re.findall(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[0])
            continue
        extra = f"[{','.join(requirement.extras)}]" if requirement.extras else ""
        marker = f"; {requirement.marker}" if requirement.marker else ""
        pinned.append(f"{requirement.name}{extra}=={floors[0]}{marker}")
    return pinned


if __name__ == "__main__":
    print("\n".join(oldest()))
