"""A run's folder in place of its weights, its recipe in place of options; recipes that come along, and their keys."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import fcn
from fcn.cli import main
from fcn.errors import ConfigError
from fcn.recipes.config import LIBRARY, load_recipe
from fcn.recipes.keys import keys


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "moved"))


def test_a_run_folder_serves_as_weights(
    run: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file, folder) = (tmp_path / "file", tmp_path / "folder")
    images = str(shapes / "test/images")
    assert main(["predict", str(run / "best.safetensors"), images, "--out", str(file)]) == 0
    assert main(["predict", str(run), images, "--out", str(folder)]) == 0
    assert [path.read_bytes() for path in sorted(file.iterdir())] == [
        path.read_bytes() for path in sorted(folder.iterdir())
    ]
    assert main(["info", str(run)]) == 0
    assert "small_batchnorm" in capsys.readouterr().out


def test_evaluate_takes_the_recipe_beside(run: Path, shapes: Path, tmp_path: Path) -> None:
    (short, long) = (tmp_path / "short.json", tmp_path / "long.json")
    data = ["--data.kind", "folder", "--data.root", str(shapes)]
    assert main(["evaluate", str(run / "best.safetensors"), *data, "--out", str(long)]) == 0
    for weights in (run, run / "best.safetensors", run / "fcn32s/best.safetensors"):
        assert main(["evaluate", str(weights), "--out", str(short)]) == 0
        found, wanted = (json.loads(path.read_text()) for path in (short, long))
        assert found.pop("weights") == str(weights if weights.is_file() else run / "best.safetensors")
        wanted.pop("weights")
        assert found == wanted
    assert main(["evaluate", str(run), "--split", "val", "--out", str(short)]) == 0
    assert (json.loads(short.read_text())["split"], json.loads(short.read_text())["images"]) == ("val", 2)


def test_data_elsewhere_are_asked_for_in_a_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--data.root", str(tmp_path / "gone")]) == 2
    assert "gone is not a folder" in capsys.readouterr().err


def test_folders_that_are_no_finished_run(run: Path, tmp_path: Path) -> None:
    (run / "best.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"has not come to its end; its best weights so far: .*fcn32s/best"):
        fcn.Predictor(run)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: a folder, and no run's"):
        fcn.load_weights(tmp_path / "empty")


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_come_along_by_name(path: Path) -> None:
    assert load_recipe(path.stem) == load_recipe(path)


def test_unknown_recipes_are_answered_with_the_known() -> None:
    with pytest.raises(
        ConfigError,
        match=r"camvid: recipe not found, nor a folder of data; these recipes come along: camvid_fcn8s_lite0, camvid",
    ):
        load_recipe("camvid")


def test_every_key_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert [key.name for key in keys() if not key.description] == []
    assert main(["train", "--keys"]) == 0
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    for key in keys():
        assert f"--{key.name} {key.default}" in printed
    assert "--data.augment.crop null (null or whole numbers in brackets) height and width" in printed
    assert "--optimizer.name sgd (sgd, adamw) sgd with momentum, or adamw." in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"fcn {fcn.__version__}\n")


def test_networks_by_name() -> None:
    assert fcn.build_model("small", classes=3).config == fcn.ModelConfig("small", classes=3)
    with pytest.raises(TypeError, match="classes belongs into the ModelConfig"):
        fcn.build_model(fcn.ModelConfig("small"), classes=3)


def test_representations_are_one_line(run: Path, shapes: Path) -> None:
    predictor, weights = fcn.Predictor(run, "cpu", precision="float32"), fcn.load_weights(run)
    assert repr(weights) == "Weights(FCN-32s, small_batchnorm, 3 classes)"
    assert repr(predictor) == "Predictor(FCN-32s, small_batchnorm, 3 classes, float32, cpu)"
    scores = weights.model.scores(torch.zeros(1, 3, 64, 96))
    assert repr(scores) == "Scores([1, 3, 2, 3] for images of 64 x 96)"
    metrics = repr(fcn.metrics_from_confusion(torch.tensor([[3, 1], [0, 4]])))
    assert metrics.startswith("Metrics(pixel_accuracy=0.875, mean_accuracy=0.875, mean_iu=0.775")
    assert "\n" not in metrics


def test_a_notebook_trains_and_scores(shapes: Path, finished: Path, tmp_path: Path) -> None:
    keys = {
        "trainer.run_dir": tmp_path / "a", "data.kind": "folder", "data.root": shapes, "data.augment.crop": [48, 64],
        "stages.stride": [32], "stages.epochs": [1], "stages.lr": [0.003],
    }  # fmt: skip
    run = fcn.train("camvid_fcn8s_small", keys=keys)
    assert run == tmp_path / "a"
    assert (run / "report.html").is_file()
    metrics = fcn.evaluate(run)
    assert isinstance(metrics, fcn.Metrics)
    assert int(metrics.confusion.sum()) == sum(
        int((sample["target"] != 255).sum()) for sample in load_recipe(run / "recipe.yaml").data.dataset("test")
    )
    other = fcn.evaluate(finished / "best.safetensors", "val", keys={"data.kind": "folder", "data.root": shapes})
    assert isinstance(other, fcn.Metrics)
