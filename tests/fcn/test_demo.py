"""The demo from end to end on tiny generated data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import fcn
from fcn.demo import DEMO_RECIPE, demo
from fcn.recipes.config import load_recipe
from fcn.weights import load_weights


def test_demo_is_part_of_the_package() -> None:
    assert DEMO_RECIPE.parent == Path(fcn.__file__).parent
    assert load_recipe(DEMO_RECIPE).data.kind == "mri"


def test_demo(shapes: Path, tmp_path: Path) -> None:
    options = ["--data.kind", "folder", "--data.root", str(shapes), "--data.augment.crop", "[48, 64]"]
    for _ in range(2):  # the second replaces the first
        results = demo(tmp_path / "out", [*options, "--stages.epochs", "[1, 1, 1]"])
    assert list(results) == ["FCN-32s", "FCN-16s", "FCN-8s"]
    summary = json.loads((tmp_path / "out/metrics.json").read_text())
    for name, metrics in results.items():
        assert summary["stages"][name]["mean_iu"] == pytest.approx(metrics.mean_iu)
    assert load_weights(tmp_path / "out/best.safetensors").model.config.stride == 8
    for name in ("overlay.png", "curves.png"):
        assert min(Image.open(tmp_path / "out" / name).size) > 200
