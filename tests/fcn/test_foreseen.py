"""Trainings that cannot succeed: stopped before the first step, or at the first number that is none."""

from __future__ import annotations

import csv
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fcn.cli import main
from fcn.errors import ConfigError, DataError, NotFiniteError
from fcn.inference.predictor import Predictor
from fcn.recipes.config import load_recipe
from fcn.training.run import resume, train
from fcn.training.task import SegmentationTask
from fcn.weights import load_weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.accelerator=gpu"], r"trainer\.accelerator: PyTorch finds no GPU here; take cpu"),
        (["--trainer.nodes=2"], r"trainer\.nodes: 2 machines must be told of each other: start with torchrun"),
    ],
)
def test_machines_that_are_not_there(
    recipe_file: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for name in ("MASTER_ADDR", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=message):
        train(load_recipe(recipe_file, options))
    assert not (tmp_path / "run/recipe.yaml").exists()


def test_a_loss_that_is_not_finite_ends_the_run(recipe_file: Path, tmp_path: Path, capsys: Any) -> None:
    options = ["--stages.epochs=[3, 1]", "--optimizer.name=sgd", "--stages.lr=[1e30, 1e-4]"]
    assert main(["train", str(recipe_file), *options]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    run = tmp_path / "run"
    assert re.search(r"FCN-32s: the loss is nan after step \d, with a rate of [\d.]+e\+29", error)
    assert f"fcn train --resume {run} --stages.lr '[1e+29, 0.0001]'" in error.replace("1.0000000000000001e+29", "1e+29")
    assert not (run / "best.safetensors").exists()
    resume(run, ["--stages.lr=[1e-3, 1e-4]"])  # with a rate that works
    assert Predictor(run / "best.safetensors").model.config.stride == 16


def test_a_stage_that_diverges_leaves_the_one_before(recipe_file: Path, tmp_path: Path) -> None:
    options = ["--stages.epochs=[1, 2]", "--optimizer.name=sgd", "--stages.lr=[1e-3, 1e30]"]
    with pytest.raises(NotFiniteError, match="FCN-16s: the loss is nan"):
        train(load_recipe(recipe_file, options))
    load_weights(tmp_path / "run/fcn32s/best.safetensors")


def test_an_epoch_whose_validation_is_not_finite_is_never_best(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SegmentationTask.on_validation_epoch_end

    def spoil(task: SegmentationTask) -> None:
        original(task)
        if task.trainer.current_epoch == 1:
            task.val_loss[0] = torch.inf

    monkeypatch.setattr(SegmentationTask, "on_validation_epoch_end", spoil)
    with pytest.raises(NotFiniteError, match="FCN-32s: the validation loss is inf after step 6"):
        train(load_recipe(recipe_file))
    with (tmp_path / "run/fcn32s/history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]
    assert load_weights(tmp_path / "run/fcn32s/best.safetensors").extra["epoch"] == "1"
    monkeypatch.undo()
    resume(tmp_path / "run")


def test_weights_that_are_not_finite_are_never_kept(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of an epoch may spoil them: its loss is still that of the step before."""

    def spoil(task: SegmentationTask, *_: Any) -> None:
        with torch.no_grad():
            next(task.parameters()).fill_(torch.nan)

    monkeypatch.setattr(SegmentationTask, "on_train_batch_end", spoil)
    with pytest.raises(NotFiniteError, match=r"FCN-32s: .* not finite|FCN-32s: the .*loss is nan"):
        train(load_recipe(recipe_file, ["--trainer.validate_every=5"]))
    state = torch.load(tmp_path / "run/fcn32s/last.ckpt", weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values())


def write_small(root: Path, count: int, size: int) -> Path:
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / "train" / folder).mkdir(parents=True)
        (root / "val" / folder).mkdir(parents=True)
    for split in ("train", "val"):
        for index in range(count):
            image = random.integers(0, 256, (size, size, 3)).astype(np.uint8)
            Image.fromarray(image).save(root / split / "images" / f"{index}.png")
            mask = random.integers(0, 2, (size, size)).astype(np.uint8)
            Image.fromarray(mask).save(root / split / "masks" / f"{index}.png")
    return root


@pytest.mark.parametrize(
    ("count", "size", "options", "fails"),
    [
        (5, 16, [], True),
        (4, 16, [], False),
        (5, 16, ["--data.batch_size=5"], False),
        (4, 16, ["--data.batch_size=1"], True),
        (5, 48, [], False),
        (5, 48, ["--data.augment.crop=[16,16]"], True),
        (5, 48, ["--data.augment.scale=[0.3,1]"], True),
        (5, 16, ["--model.backbone=small"], False),
    ],
)
def test_one_cell_that_batch_normalization_cannot_take(
    recipe_file: Path, tmp_path: Path, count: int, size: int, options: list[str], fails: bool
) -> None:
    root = write_small(tmp_path / "data", count, size)
    plain = ["--data.augment.crop=null", "--data.augment.scale=[1,1]", "--stages.stride=[32]", "--stages.epochs=[1]"]
    recipe = load_recipe(recipe_file, [f"--data.root={root}", *plain, "--stages.lr=[1e-4]", *options])
    if fails:
        with pytest.raises(
            ConfigError, match=r"data\.batch_size: a batch may be one image of .*take another batch_size"
        ):
            train(recipe)
        assert not list((tmp_path / "run").rglob("events*"))
    else:
        train(recipe)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("data.augment.scale=[10000,10000]", "augment.scale must be two factors, .* to 16"),
        ("data.augment.scale=[.nan,1]", "augment.scale must be two factors|finite|float"),
        ("data.augment.crop=[100000,100000]", "augment.crop must be a height and a width of 1 to 8192"),
        ("data.augment.jitter=1000000", "augment.jitter must be 0 to 8192 pixels"),
        ("data.workers=-1", "data.workers must be 0 to 256"),
        ("data.workers=100000", "data.workers must be 0 to 256"),
        ("stages.lr=[0, 0.1]", "stages.lr must be above 0 and finite"),
        ("stages.lr=[-1, 0.1]", "stages.lr must be above 0 and finite"),
        ("stages.lr=[1e999, 0.1]", "stages.lr"),
        ("optimizer.momentum=1", "optimizer.momentum must be at least 0 and below 1"),
        ("optimizer.momentum=-0.1", "optimizer.momentum must be at least 0 and below 1"),
        ("optimizer.weight_decay=-1", "optimizer.weight_decay must be at least 0 and finite"),
        ("optimizer.weight_decay=1e999", "optimizer.weight_decay"),
        ("model.dropout=1", "model.dropout must be a probability below 1"),
        ("model.dropout=-0.5", "model.dropout must be a probability below 1"),
        ("loss.task_weights={a: 1e999}", "loss.task_weights"),
        ("trainer.seed=-1", "trainer.seed must be a number from 0"),
    ],
)
def test_values_that_make_no_sense(recipe_file: Path, option: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe_file, [f"--{option}"])


def test_data_without_names_may_lack_a_class(shapes: Path, recipe_file: Path, tmp_path: Path) -> None:
    """Classes that nothing names are counted in what is there."""
    for name in ("whole", "lacking"):
        for split, folder in product(("train", "val"), ("images", "masks")):
            target = tmp_path / name / split / folder
            target.mkdir(parents=True)
            for path in (shapes / split / folder).iterdir():
                image = Image.open(path)
                if name == "lacking" and folder == "masks":
                    image = image.point([0, 1, 1, *[255] * 253])
                image.save(target / path.name)
    options = [f"--data.root={tmp_path / 'whole'}", "--stages.stride=[32]", "--stages.epochs=[1]", "--stages.lr=[0.01]"]
    predictor = Predictor(train(load_recipe(recipe_file, options)))
    lacking = tmp_path / "lacking"
    data = load_recipe(recipe_file, [f"--data.root={lacking}"]).data
    assert len(predictor.evaluate(data.dataset("val"), progress=False).class_iu) == 3
    (lacking / "classes.txt").write_text("sky\nsea\n")
    with pytest.raises(DataError, match=r"the data have classes sky, sea; .*classes\.txt names them"):
        predictor.evaluate(data.dataset("val"), progress=False)
