"""The experiments run from the command line with tiny settings, and what they compare is equal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fcn.cli import main
from fcn.experiments import EXPERIMENTS, experiment
from fcn.experiments.efficiency import patches
from fcn.experiments.result import Result, Table, show, write
from fcn.experiments.sampling import smoothed
from fcn.experiments.timing import as_usually_written, depth, labeling, random_image, random_model
from fcn.experiments.trials import percentages
from fcn.experiments.upper_bound import restored, shares
from fcn.inference.predictor import Predictor
from fcn.networks.graph import reaches, trace
from fcn.networks.models import ModelConfig, build_model
from fcn.recipes.config import load_recipe
from fcn.weights import load_weights

ARGUMENTS = {
    "rarefaction": "--network small --layer pool2 --size 40 --repeats 1",
    "efficiency": "--network small --size 130 --batch 2 --repeats 1",
    "timing": "--networks small googlenet --network small --size 40 --classes 5 --repeats 1 --no-compile",
}


def run(name: str, out: Path, arguments: str = "") -> list[dict[str, list[Any]]]:
    """Rows of the written tables, by their first cell."""
    arguments = arguments or ARGUMENTS[name]
    assert main(["experiment", name, *arguments.split(), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [f"{name}.json", f"{name}.md", f"{name}.png"]
    record = json.loads((out / f"{name}.json").read_text())
    text = (out / f"{name}.md").read_text()
    assert f"fcn experiment {name} --" in text
    assert all(note in text for note in record["notes"])
    assert Image.open(out / f"{name}.png").size[0] > 300
    assert record["machine"]["torch"] == torch.__version__
    return [{row[0]: row[1:] for row in table["rows"]} for table in record["tables"]]


def test_rarefaction(tmp_path: Path) -> None:
    (rows,) = run("rarefaction", tmp_path)
    assert list(rows) == [
        "strided, 4", "shift-and-stitch, 2", "rarefied, 2", "shift-and-stitch, 1", "rarefied, 1"
    ]  # fmt: skip
    for positions, work, milliseconds, from_stitched, from_strided in rows.values():
        assert min(positions, work, milliseconds) > 0
        assert max(from_stitched, from_strided) < 1e-5
    assert rows["rarefied, 1"][0] == rows["shift-and-stitch, 1"][0] == (40 - 14 + 1) ** 2
    assert rows["rarefied, 1"][1] < rows["shift-and-stitch, 1"][1]


def test_efficiency(tmp_path: Path) -> None:
    tables = run("efficiency", tmp_path)
    assert len(tables) == 2
    for rows in tables:
        assert list(rows) == ["convolutional", "9 patches, 2 at a time", "9 patches, one by one"]
        for milliseconds, each, ratio in rows.values():
            assert each == pytest.approx(milliseconds / 9)
            assert ratio == pytest.approx(milliseconds / rows["convolutional"][0])


def test_timing(tmp_path: Path) -> None:
    networks, ways = run("timing", tmp_path)
    assert list(networks) == ["FCN-small", "FCN-googlenet"]
    assert networks["FCN-googlenet"][0] == 59
    usual = ways["PyTorch as usually written, float32"]
    assert usual[1] is None
    assert usual[-1] == ways["float32"][-1] == 100


@pytest.mark.parametrize(("name", "expected"), [("alexnet", (8, 355)), ("vgg16", (16, 404)), ("googlenet", (22, 715))])
def test_layers_and_receptive_field_of_table_1(name: str, expected: tuple[int, int]) -> None:
    """GoogLeNet's 907 counts the average pooling, 6 * 32 pixels, that the paper's FCN leaves out."""
    with torch.device("meta"):
        trunk = build_model(ModelConfig(name, 32, pad="official")).backbone.eval()
    deepest = max(reaches(trace(trunk)).values(), key=lambda reach: reach.field)
    assert (depth(trunk) + 1, deepest.field[0]) == expected
    assert deepest.stride == (32, 32)


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_the_usual_spelling_is_the_same_network(stride: int) -> None:
    torch.manual_seed(0)
    for size in ((121, 170), (96, 97)):
        image = random_image(size, torch.device("cpu"))
        model = random_model("small", stride, 4, "official", image)
        labels = labeling(model, image)()
        assert len(labels.unique()) > 2
        assert (as_usually_written(model, image)() == labels).float().mean() > 0.999


def test_patches_are_what_the_scores_see() -> None:
    image = torch.arange(30.0).view(1, 1, 5, 6)
    cut = patches(image, 3, 2, (2, 3))
    assert cut.shape == (6, 1, 3, 3)
    assert torch.equal(cut[4, 0], image[0, 0, 2:5, 2:5])
    assert torch.equal(cut[5, 0, :, :2], image[0, 0, 2:5, 4:6])
    assert bool((cut[5, 0, :, 2] == 0).all())  # past the image


def test_skips(recipe_file: Path, tmp_path: Path) -> None:
    """Each network is scored on the test split; the fixed one learns its scores alone."""
    stages = "stages.stride=[32,16,8] stages.epochs=[1,1,1] stages.lr=[.01,.01,.01]"
    runs = tmp_path / "runs"
    here, paper = run("skips", tmp_path / "out", f"--data {recipe_file} --runs {runs} --size 40 --set {stages}")
    assert list(here) == list(paper) == ["FCN-32s-fixed", "FCN-32s", "FCN-16s", "FCN-8s"]
    predictor = Predictor(runs / "staged/fcn8s/best.safetensors", precision="float32")
    metrics = predictor.evaluate(load_recipe(recipe_file).data.dataset("test"), progress=False)
    assert here["FCN-8s"] == percentages(metrics)
    assert not predictor.model.head.get_submodule("score_pool3").weight.eq(0).all()
    start = load_weights(runs / "fixed/fcn32s/best.safetensors").model
    assert start.head.get_submodule("score_fr").weight.any()
    assert load_recipe(runs / "fixed/recipe.yaml").model.tune == "head"


def test_deconv(recipe_file: Path, tmp_path: Path) -> None:
    (rows,) = run("deconv", tmp_path / "out", f"--data {recipe_file} --epochs 1 --filter dense --runs {tmp_path / 'r'}")
    # FCN-16s: a 4 x 4 filter between streams, 32 x 32 onto the image; of 3 classes, from each to each.
    assert [row[0] for row in rows.values()] == [0, 9 * 16, 9 * (16 + 32 * 32)]
    learned = load_weights(tmp_path / "r/learned_throughout/fcn16s/best.safetensors").model
    bilinear = build_model(learned.config).state_dict()["head.upscore16.weight"]
    assert not torch.equal(learned.state_dict()["head.upscore16.weight"], bilinear)


def test_sampling(recipe_file: Path, tmp_path: Path) -> None:
    (rows,) = run(
        "sampling", tmp_path / "out", f"--data {recipe_file} --epochs 2 --probabilities 1 .5 --runs {tmp_path / 'r'}"
    )
    assert {name: row[:2] for name, row in rows.items()} == {"100%": [2, 6], "50%": [4, 8]}
    curves = json.loads((tmp_path / "out/sampling.json").read_text())["measurements"]["curves"]
    losses = curves["1"]["loss"]
    assert losses[0] == pytest.approx(math.log(3), rel=1e-4)  # scores are zero at the start
    assert rows["100%"][2] == losses[-1] < losses[0]
    assert curves["1"]["step"] == list(range(6))


def test_upper_bound_of_the_demo(tmp_path: Path) -> None:
    pytest.importorskip("nilearn")
    (rows,) = run("upper-bound", tmp_path, "--data demo --split val --factors 1 8 32 128")
    repeated, bilinear, paper = (list(column) for column in zip(*rows.values(), strict=True))
    assert repeated[0] == bilinear[0] == 100
    for values in (repeated, bilinear):
        assert values == sorted(values, reverse=True)
        assert 20 < values[-1] < values[1] < 100
    assert paper == [None, 96.4, 86.1, 50.9]


def test_labels_of_cells() -> None:
    """Void counts nowhere; cells at the edge are smaller."""
    target = np.array([[0, 1, 2], [1, 255, 255], [255, 255, 0]], np.uint8)
    coarse = shares(target, 3, 2)
    expected = torch.tensor([[[1 / 3, 0], [0, 1]], [[2 / 3, 0], [0, 0]], [[0, 1], [0, 0]]])
    torch.testing.assert_close(coarse, expected[None])
    repeated, smooth = restored(target, 3, 2)
    assert repeated.tolist() == [[[1, 1, 2], [1, 1, 2], [0, 0, 0]]]
    assert smooth.shape == repeated.shape


def test_smoothed_curve() -> None:
    values = np.arange(40.0)
    assert smoothed(values)[:3].tolist() == [0, 0.5, 1.5]


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        ([83.0, 59.7, 100.0], ["83.0", "59.7", "100.0"]),
        ([1.0, 4.123, 16.0], ["1.00", "4.12", "16.00"]),
        ([0.0123456, 0.0, 2.0], ["0.0123", "0.0000", "2.0000"]),
        ([1.234e-7, 0.0], ["1.23e-07", "0"]),
        ([0.0, None, 7], ["0", "-", "7"]),
        ([math.nan, 2.5], ["nan", "2.50"]),
    ],
)
def test_numbers_of_a_column_have_the_same_decimals(cells: list[Any], shown: list[str]) -> None:
    table = Table("t", ("name", "a", "b"), [["x", cell, 0.5] for cell in cells])
    assert table.text() == [["x", text, "0.500"] for text in shown]


def test_cells_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("t", ("name", "a"), [["x", 1234567], ["y", 12345.6], ["w", None]])
    assert [row[1] for row in table.text()] == ["1,234,567", "12,346", "-"]
    result = Result("title", [table], lambda figure: None, ["A note."])
    show(result)
    assert "A note." in capsys.readouterr().out
    write(result, "n", {"sizes": [1, 2], "fast": True, "slow": False}, torch.device("cpu"), tmp_path)
    assert "`fcn experiment n --sizes 1 2 --fast`" in (tmp_path / "n.md").read_text()
    assert all(callable(experiment(name).run) for name in EXPERIMENTS)
    for arguments, message in {
        ("rarefaction", "--size", "9"): "pool3 sees 44 pixels",
        ("rarefaction", "--layer", "pool9"): "no layer is named pool9",
        ("rarefaction", "--layer", "conv1_1"): "is dense already",
        ("efficiency", "--size", "9"): "classifies 227 pixels",
        ("skips", "--set", "stages.stride=[8]", "stages.epochs=[1]", "stages.lr=[1]"): "must train strides",
        ("sampling", "--set", "stages.stride=[8]", "stages.epochs=[1]", "stages.lr=[1]"): "wants 32 among them",
        ("upper-bound", "--data", "none.yaml"): "recipe not found",
    }.items():
        assert main(["experiment", *arguments]) == 2
        assert message in capsys.readouterr().err
    for wrong, message in {
        ("sampling", "--probabilities", "0"): "above 0 and at most 1, got 0",
        ("sampling", "--epochs", "0"): "at least 1, got 0",
        ("timing", "--repeats", "none"): "at least 1, got none",
        ("upper-bound", "--factors", "0"): "at least 1, got 0",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            main(["experiment", *wrong])
        assert message in capsys.readouterr().err
    for device in ("cuda:99", "abacus"):
        assert main(["experiment", "timing", "--device", device]) == 2
        assert f"device {device}: PyTorch does not have it here" in capsys.readouterr().err
