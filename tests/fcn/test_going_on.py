"""Runs that go on: for more epochs, from elsewhere, with another rate; and what may not change."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ONE_STAGE

from fcn.cli import main
from fcn.errors import ConfigError
from fcn.recipes.config import Recipe, load_recipe, save_recipe
from fcn.training.run import AT_RESUME, resume, train


def epochs_of(stage: Path) -> list[int]:
    with (stage / "history.csv").open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def checkpoint_of(run: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run / "fcn32s/last.ckpt", weights_only=True)
    return checkpoint


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it: it was moved, too."""
    return Path(shutil.copytree(finished, tmp_path / "moved"))


def test_more_epochs_are_those_of_a_longer_run(run: Path, recipe_file: Path) -> None:
    train(load_recipe(recipe_file, [*ONE_STAGE, "--stages.epochs=[4]"]))
    assert main(["train", "--resume", str(run), "--stages.epochs", "[4]"]) == 0
    assert epochs_of(run / "fcn32s") == [1, 2, 3, 4]
    longer, extended = (checkpoint_of(each)["state_dict"] for each in (recipe_file.parent / "run", run))
    assert all(torch.equal(longer[name], extended[name]) for name in longer)
    assert load_recipe(run / "recipe.yaml").stages.epochs == [4]
    assert main(["train", "--resume", str(run)]) == 0  # by then finished
    assert epochs_of(run / "fcn32s") == [1, 2, 3, 4]


def test_the_recipe_of_a_run_may_be_edited(run: Path) -> None:
    recipe = load_recipe(run / "recipe.yaml")
    save_recipe(dataclasses.replace(recipe, stages=dataclasses.replace(recipe.stages, epochs=[3])), run / "recipe.yaml")
    resume(run)
    assert epochs_of(run / "fcn32s") == [1, 2, 3]


def test_the_new_rate_holds(run: Path) -> None:
    before = checkpoint_of(run)["optimizer_states"][0]["param_groups"]
    resume(run, ["--stages.epochs=[3]", "--stages.lr=[0.0001]", "--optimizer.weight_decay=0.02"])
    after = checkpoint_of(run)
    assert [group["lr"] for group in after["optimizer_states"][0]["param_groups"]] == [
        pytest.approx(group["lr"] / 30) for group in before
    ]
    assert {group["weight_decay"] for group in after["optimizer_states"][0]["param_groups"]} == {0.02, 0.0}
    assert after["lr_schedulers"][0]["base_lrs"] == pytest.approx([0.0001, 0.0002, 0.0001])


def test_data_that_moved(run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = shutil.copytree(shapes, tmp_path / "elsewhere")
    recipe = load_recipe(run / "recipe.yaml")
    gone = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=str(tmp_path / "gone")))
    save_recipe(gone, run / "recipe.yaml")
    with pytest.raises(ConfigError, match=r"data\.root: .*gone is not a folder"):
        resume(run)
    monkeypatch.chdir(tmp_path)
    resume("moved", ["--data.root=elsewhere", "--stages.epochs=[3]"])
    assert load_recipe(run / "recipe.yaml").data.root == str(moved)  # in full: it may be resumed from anywhere
    assert epochs_of(run / "fcn32s") == [1, 2, 3]


def test_a_relative_root_is_kept_in_full(recipe: Recipe, shapes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shapes.parent)
    relative = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=shapes.name))
    train(relative)
    (Path(recipe.trainer.run_dir) / "fcn16s/result.json").unlink()
    monkeypatch.chdir("/")
    resume(recipe.trainer.run_dir)


@pytest.mark.parametrize("option", ["--model.backbone=small", "--trainer.seed=4", "--data.batch_size=1", "--loss.x=1"])
def test_what_may_not_change_is_named(run: Path, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(run), option]) == 2
    key = option[2:].partition("=")[0]
    assert f"{key} cannot be changed when a run goes on; these can: {', '.join(AT_RESUME)}" in capsys.readouterr().err


def test_other_images_are_noticed(run: Path, shapes: Path, tmp_path: Path) -> None:
    fewer = Path(shutil.copytree(shapes, tmp_path / "fewer"))
    for folder in ("images", "masks"):
        next((fewer / "train" / folder).iterdir()).unlink()
    left = {path.stem for path in (fewer / "train/images").iterdir()}
    for path in (fewer / "train/masks").iterdir():
        if path.stem not in left:
            path.unlink()
    for stem in left - {path.stem for path in (fewer / "train/masks").iterdir()}:
        next((fewer / "train/images").glob(f"{stem}.*")).unlink()
    with pytest.raises(ConfigError, match=r"begun with 6 training images, and there are [45] now"):
        resume(run, [f"--data.root={fewer}", "--stages.epochs=[3]"])


def test_fewer_epochs_than_were_trained(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages\.epochs: FCN-32s has been trained for 2 already, got 1"):
        resume(run, ["--stages.epochs=[1]"])


def test_a_stage_that_others_started_from_cannot_go_on(recipe: Recipe) -> None:
    train(recipe)
    with pytest.raises(ConfigError, match="FCN-32s cannot go on, FCN-16s has been trained from it; leave it at 2"):
        resume(recipe.trainer.run_dir, ["--stages.epochs=[3, 2]"])
    resume(recipe.trainer.run_dir, ["--stages.epochs=[2, 3]"])
    assert epochs_of(Path(recipe.trainer.run_dir) / "fcn16s") == [1, 2, 3]


def foreign(path: Path) -> None:
    torch.save({"state_dict": {}, "epoch": 3}, path)


def of_another_network(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"].pop("model.head.score_fr.weight")
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "damaged checkpoint: EOFError|damaged checkpoint: Ran out of input"),
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "damaged checkpoint: "),
        (lambda path: torch.save([1], path), "not a checkpoint of such a run"),
        (foreign, "not a checkpoint of such a run .it has no callbacks, global_step"),
        (of_another_network, "a checkpoint of another network than the recipe's: model.head.score_fr.weight"),
    ],
)
def test_checkpoints_that_are_none(run: Path, damage: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage(run / "fcn32s/last.ckpt")
    with pytest.raises(ConfigError, match=rf"last\.ckpt: ({message})"):
        resume(run, ["--stages.epochs=[3]"])
    assert main(["train", "--resume", str(run), "--stages.epochs=[3]"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("fcn train: ")
    assert "weights_only" not in error
