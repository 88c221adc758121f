"""Generated data: colored squares and disks on noise, in the folder layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcn.networks.backbones import BACKBONES
from fcn.recipes.config import Recipe, load_recipe
from fcn.training.run import train
from tests.fcn.networks import narrowed

CLASSES = ["ground", "square", "disk"]


def shapes_sample(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its labels; a few void pixels along the top."""
    image = random.integers(60, 110, (height, width, 3)).astype(np.uint8)
    target = np.zeros((height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    y, x = random.integers(8, height - 8), random.integers(8, width // 2 - 4)
    square = (abs(rows - y) < 8) & (abs(columns - x) < 8)
    y, x = random.integers(8, height - 8), random.integers(width // 2 + 4, width - 8)
    disk = (rows - y) ** 2 + (columns - x) ** 2 < 64
    image[square], target[square] = (220, 40, 40), 1
    image[disk], target[disk] = (40, 60, 230), 2
    target[0, :5] = 255
    return image, target


def write_shapes(root: Path) -> None:
    """<root>/{train,val,test}/{images,masks}; test images have different sizes."""
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2), ("test", 3)):
        for name in ("images", "masks"):
            (root / split / name).mkdir(parents=True)
        for index in range(count):
            size = (48 + 7 * index, 64 + 5 * index) if split == "test" else (48, 64)
            image, target = shapes_sample(random, *size)
            Image.fromarray(image).save(root / split / "images" / f"{split}{index}.png")
            Image.fromarray(target).save(root / split / "masks" / f"{split}{index}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root)
    return root


RECIPE = """
data: {{kind: folder, root: {root}, batch_size: 2, augment: {{mirror: true, scale: [0.8, 1.25], crop: [48, 64]}}}}
model: {{backbone: small_batchnorm, dropout: 0.2}}
optimizer: {{name: adamw, weight_decay: 0.01, schedule: poly}}
stages: {{stride: [32, 16], epochs: [2, 2], lr: [0.003, 0.003]}}
trainer: {{run_dir: {run_dir}, seed: 3}}
"""


ONE_STAGE = ["--stages.stride=[32]", "--stages.epochs=[2]", "--stages.lr=[0.003]", "--optimizer.schedule=constant"]


@pytest.fixture(scope="session")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one stage, two epochs: to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(root=shapes, run_dir=folder / "run"))
    torch.set_num_threads(1)
    train(load_recipe(path, ONE_STAGE))
    return folder / "run"


@pytest.fixture
def recipe_file(shapes: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(root=shapes, run_dir=tmp_path / "run"))
    return path


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


@pytest.fixture
def real_data() -> Path:
    """Folder of the real data sets; the test is skipped where it is absent."""
    root = Path(os.environ.get("FCN_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
    if not (root / "camvid").is_dir():
        pytest.skip(f"{root} has no data sets (set FCN_DATA)")
    return root


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def narrow_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published backbones with few channels, under their own names."""
    divisors = {
        "alexnet": 32, "vgg16": 64, "vgg19": 64, "googlenet": 16, "alexnet_torchvision": 32,
        "googlenet_torchvision": 16, "efficientnet_lite0": 8, "efficientnet_lite1": 8, "efficientnet_lite2": 8,
    }  # fmt: skip
    for name, divisor in divisors.items():
        monkeypatch.setitem(BACKBONES, name, narrowed(BACKBONES[name], divisor))
