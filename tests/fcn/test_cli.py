"""The command line from end to end on tiny generated data, and the errors its users meet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcn.cli import main
from fcn.data import read_labels
from fcn.data.preprocessing import IMAGENET
from fcn.networks.models import ModelConfig, build_model
from fcn.weights import save_weights

REPOSITORY = Path(__file__).parents[2]
COLORS = [(0, 0, 0), (200, 30, 30), (30, 60, 220)]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    model = build_model(ModelConfig("small", stride=16, classes=3))
    torch.nn.init.normal_(model.head.score_fr.weight)
    save_weights(path, model, classes=["ground", "square", "disk"], palette=COLORS, preprocessing=IMAGENET)
    return path


def test_train_evaluate_predict_info(
    recipe_file: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(recipe_file), "--stages.epochs", "[1, 2]"]) == 0
    weights = tmp_path / "run/best.safetensors"
    assert f"Best weights: {weights}" in capsys.readouterr().out

    out = tmp_path / "metrics.json"
    data = ["--data.kind", "folder", "--data.root", str(shapes)]
    extras = ["--csv", str(tmp_path / "c.csv"), "--confusion", str(tmp_path / "c.png"), "--trimap", "1", "4"]
    assert main(["evaluate", str(weights), *data, "--out", str(out), *extras]) == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["images"] == 3
    assert result["split"] == "test"
    assert set(result["class_iu"]) == {"ground", "square", "disk"}
    assert f"{100 * result['mean_iu']:.1f}" in printed
    assert "f.w. IU" in printed
    labeled = sum(int((np.asarray(Image.open(p)) != 255).sum()) for p in (shapes / "test/masks").iterdir())
    assert sum(map(sum, result["confusion"])) == labeled
    assert set(result["trimap_iu"]) == {"1", "4"}
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["class", "ground", "square", "disk"]
    assert int(lines[1].split(",")[1]) == sum(result["confusion"][0])
    assert Image.open(tmp_path / "c.png").format == "PNG"

    predictions = tmp_path / "predictions"
    images = str(shapes / "test/images")
    assert main(["predict", str(weights), images, "--out", str(predictions), "--precision", "float32"]) == 0
    for path in (shapes / "test/images").iterdir():
        assert Image.open(predictions / path.name).size == Image.open(path).size
        assert Image.open(predictions / f"{path.stem}_overlay.png").format == "PNG"
    # What was written is what was scored.
    confusion = np.zeros((3, 3), int)
    for path in (shapes / "test/masks").iterdir():
        truth, found = np.asarray(Image.open(path)), read_labels(predictions / path.name, 3)
        np.add.at(confusion, (truth[truth != 255], found[truth != 255]), 1)
    assert confusion.tolist() == result["confusion"]

    capsys.readouterr()
    assert main(["info", str(weights)]) == 0
    printed = capsys.readouterr().out
    assert "score_pool4" in printed
    assert "ground, square, disk" in printed


def test_predict_names_corrupt_files_and_finishes_the_rest(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a_broken.jpg").write_bytes(b"\xff\xd8\xff junk")
    Image.new("RGBA", (37, 23), (10, 200, 30, 128)).save(images / "b.png")
    Image.fromarray(np.full((20, 30), 40000, np.uint16)).save(images / "c.png")
    assert main(["predict", str(weights), str(images), "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "a_broken.jpg: cannot read image" in printed.err
    assert "2 of 3 files, 2 images labeled in " in printed.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "b.png", "b_overlay.png", "c.png", "c_overlay.png",
    ]  # fmt: skip
    assert Image.open(tmp_path / "out/b.png").size == (37, 23)


def test_errors_are_one_line_with_code_2(
    weights: Path, recipe_file: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "foreign.safetensors").write_bytes(b"not weights")
    (tmp_path / "empty").mkdir()
    same = tmp_path / "same"
    same.mkdir()
    Image.new("RGB", (4, 4)).save(same / "x.png")
    Image.new("RGB", (4, 4)).save(same / "x.jpg")
    cases = {
        ("train", str(tmp_path / "none.yaml")): "none.yaml: recipe not found",
        ("train",): "give a folder of data or a recipe",
        ("train", "--resume", str(tmp_path / "empty")): "not a run folder",
        ("train", str(recipe_file), "--data.root", str(tmp_path / "gone")): "gone is not a folder",
        ("train", "--data.root", str(tmp_path / "gone"), str(recipe_file)): "gone is not a folder",
        ("train", str(recipe_file), "--data.train_split", "gone"): "split 'gone' not found",
        ("train", str(recipe_file), "--model.backbone", "resnet", "--trainer.run_dir", str(tmp_path / "r2")): "resnet",
        ("info", str(tmp_path / "none.safetensors")): "none.safetensors: no such file",
        ("info", str(tmp_path / "foreign.safetensors")): "foreign.safetensors: not a whole safetensors file",
        ("predict", str(weights), str(tmp_path / "gone.png"), "--out", str(tmp_path)): "gone.png: no such file",
        ("predict", str(weights), str(tmp_path / "empty"), "--out", str(tmp_path)): "no images in this folder",
        ("predict", str(weights), str(same), "--out", str(tmp_path)): "written to the same file",
        ("evaluate", str(weights), "--data.kind", "folder"): "data.root is missing",
        ("evaluate", str(weights), "--data.kind", "mri"): "the weights were trained for ground, square, disk",
    }
    for arguments, message in cases.items():
        assert main(arguments) == 2, arguments
        error = capsys.readouterr().err
        assert message in error, (arguments, error)
        assert len(error.strip().splitlines()) == 1, error
        assert error.startswith(f"fcn {arguments[0]}: ")


def test_usage_errors_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["predict", "w", "i", "--out", "o", "--nonsense"])
    assert exit_info.value.code == 2
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err
    assert main(["train", "--keys"]) == 0
    assert "--optimizer.momentum" in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_prints_how_to_resume(recipe_file: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fcn", "train", str(recipe_file), "--stages.epochs", "[5000, 1]"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, cwd=tmp_path)
    assert process.stderr is not None
    seen = b""
    while b": loss " not in seen:  # training has begun
        chunk = os.read(process.stderr.fileno(), 4096)
        assert chunk, seen
        seen += chunk
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert f"fcn train --resume {tmp_path / 'run'}" in error
    assert "Traceback" not in error
    assert (tmp_path / "run/fcn32s/last.ckpt").exists()
