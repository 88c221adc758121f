"""The experiments run from the command line with tiny settings, and what they compare is equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fcn.cli import main
from fcn.experiments import Result, Table, experiments, show, write
from fcn.experiments.efficiency import patches
from fcn.experiments.timing import as_usually_written, depth, labeling, random_image, random_model
from fcn.graph import reaches, trace
from fcn.models import ModelConfig, build_model

ARGUMENTS = {
    "rarefaction": "--network small --layer pool2 --size 40 --repeats 1",
    "efficiency": "--network small --size 130 --batch 2 --repeats 1",
    "timing": "--networks small googlenet --network small --size 40 --classes 5 --repeats 1 --no-compile",
}


def run(name: str, out: Path) -> list[dict[str, list[Any]]]:
    """Rows of the written tables, by their first cell."""
    assert main(["experiment", name, *ARGUMENTS[name].split(), "--out", str(out)]) == 0
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


def test_cells_and_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("t", ("name", "a"), [["x", 1234567], ["y", 12345.6], ["z", 0.012345], ["w", None]])
    assert [row[1] for row in table.text()] == ["1,234,567", "12,346", "0.0123", "-"]
    result = Result("title", [table], lambda figure: None, ["A note."])
    show(result)
    assert "A note." in capsys.readouterr().out
    write(result, "n", {"sizes": [1, 2], "fast": True, "slow": False}, torch.device("cpu"), tmp_path)
    assert "`fcn experiment n --sizes 1 2 --fast`" in (tmp_path / "n.md").read_text()
    assert set(experiments()) >= {"rarefaction", "efficiency", "timing"}
    for arguments, message in {
        ("rarefaction", "--size", "9"): "pool3 sees 44 pixels",
        ("rarefaction", "--layer", "pool9"): "no layer is named pool9",
        ("rarefaction", "--layer", "conv1_1"): "is dense already",
        ("efficiency", "--size", "9"): "classifies 227 pixels",
    }.items():
        assert main(["experiment", *arguments]) == 2
        assert message in capsys.readouterr().err
