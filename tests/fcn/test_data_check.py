"""``fcn data check``: a sound data set passes, and every kind of damage is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn.cli import main
from fcn.data import folder
from fcn.data.check import check
from fcn.errors import DataError


@pytest.fixture
def root(shapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shapes, tmp_path / "[data]"))  # rich would take such a name for markup


def test_counts_are_those_of_the_files(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report/check.json"
    assert main(["data", "check", str(root), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "No problems found" in printed.out
    assert "check train" in printed.err
    assert "6/6" in printed.err
    report = json.loads(out.read_text())
    assert report["data"] == "folder"
    assert report["problems"] == []
    assert list(report["splits"]) == ["train", "val", "test"]
    for split, found in report["splits"].items():
        masks = [np.asarray(Image.open(path)) for path in (root / split / "masks").iterdir()]
        assert found["images"] == len(masks)
        assert found["void"] == {"255": sum(int((mask == 255).sum()) for mask in masks)}
        for label, name in enumerate(["ground", "square", "disk"]):
            assert found["pixels"][name] == sum(int((mask == label).sum()) for mask in masks)
            assert found["images_with"][name] == sum(bool((mask == label).any()) for mask in masks)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def out_of_range(path: Path) -> None:
    labels = np.asarray(Image.open(path)).copy()
    labels[0, :4] = [7, 9, 7, 7]
    Image.fromarray(labels).save(path)


DAMAGE: list[tuple[str, Callable[[Path], None], str, str]] = [
    ("train/masks/train1.png", out_of_range, "out of range", "7 (3 pixels), 9 (1 pixels); wanted 0 to 2, or 255 for"),
    ("train/masks/train1.png", lambda path: Image.new("L", (60, 48)).save(path), "size mismatch", "is 60x48 and its"),
    (
        "train/masks/train1.png",
        lambda path: Image.new("RGB", (64, 48), (9, 0, 0)).save(path),
        "unreadable",
        "got mode RGB",
    ),
    ("train/masks/train1.png", truncate, "unreadable", "cannot read label map"),
    ("train/images/train1.png", truncate, "unreadable", "cannot read image"),
    ("train/masks/train1.png", lambda path: path.unlink(), "unusable", "mask of image 'train1.png' is missing"),
]


@pytest.mark.parametrize(("file", "damage", "trouble", "message"), DAMAGE)
def test_damage_is_named(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    damage: Callable[[Path], None],
    trouble: str,
    message: str,
) -> None:
    damage(root / file)
    out = tmp_path / "check.json"
    assert main(["data", "check", str(root), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    (problem,) = json.loads(out.read_text())["problems"]
    assert (problem["split"], problem["trouble"]) == ("train", trouble)
    assert message in problem["what"]
    assert "train1.png" in problem["what"]
    assert "[data]" in problem["what"]
    assert "1 problems" in printed
    assert trouble in printed
    assert "No problems" not in printed


def test_overlap_of_splits_and_names_given_twice(root: Path, tmp_path: Path) -> None:
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for kind in ("images", "masks"):
        for path in (root / "train" / kind).iterdir():
            path.rename(root / kind / path.name)
    (root / "one.txt").write_text("train0\ntrain1\ntrain1\n")
    (root / "two.txt").write_text("train2\ntrain0\n")
    out = tmp_path / "check.json"
    assert main(["data", "check", str(root), "--splits", "one", "two", "--out", str(out)]) == 1
    assert [(p["trouble"], p["what"]) for p in json.loads(out.read_text())["problems"]] == [
        ("twice", "train1 is 2 times in this split"),
        ("overlap", "train0 is in two too"),
    ]


def test_images_that_no_split_may_hold(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("val1\nother\n")
    assert main(["data", "check", str(root), "--against", "seg11valid", str(held_out)]) == 1
    assert "val1 is in" in capsys.readouterr().out
    assert main(["data", "check", str(root), "--against", "seg11valid", "voc2012val"]) == 0
    assert main(["data", "check", str(root), "--against", "gone"]) == 2


def test_files_are_read_once_and_a_split_that_cannot_be_listed_does_not_stop_the_others(
    shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder(shapes, "test")
    read: list[Path] = []
    stored, pixels = data.read_stored, data.read_pixels
    data.read_stored = lambda path: (read.append(path), stored(path))[1]
    data.read_pixels = lambda path: (read.append(path), pixels(path))[1]
    report = check({"gone": DataError("lost"), "test": data}, progress=False)
    assert sorted(read) == sorted(path for pair in data.pairs for path in pair)
    assert [(p.split, p.trouble, p.what) for p in report.problems] == [("gone", "unusable", "lost")]
    assert len(report.splits["test"].names) == 3
    assert capsys.readouterr().err == ""


def test_splits_asked_for_must_be_there_and_others_need_not(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "val")
    assert main(["data", "check", str(root)]) == 0
    assert main(["data", "check", str(root), "--splits", "train", "val"]) == 1
    capsys.readouterr()
    for arguments, message in (
        ([str(tmp_path / "gone")], "gone is not a folder"),
        ([str(root), "--data.kind", "voc"], "train.txt: list not found"),
        ([str(root), "--data.kind=mri"], "mri has no files to check"),
        ([str(root), "--data.kind", "vox"], "data.kind must be one of camvid, voc, sbd"),
    ):
        assert main(["data", "check", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_kind_is_recognized_and_void_codes_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SegNet's CamVid: void is 11. The same files with 255 as void are out of range."""
    for folder_name in ("train", "trainannot"):
        (tmp_path / folder_name).mkdir()
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.new("RGB", (4, 3)).save(tmp_path / "train/a.png")
    Image.fromarray(labels).save(tmp_path / "trainannot/a.png")
    out = tmp_path / "check.json"
    assert main(["data", "check", str(tmp_path), "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["data"] == "camvid"
    assert report["splits"]["train"]["void"] == {"11": 1}
    Image.fromarray(np.where(labels == 11, 255, labels).astype(np.uint8)).save(tmp_path / "trainannot/a.png")
    assert main(["data", "check", str(tmp_path), "--out", str(out)]) == 1
    assert "255 (1 pixels); wanted 0 to 10, or 11 for void" in json.loads(out.read_text())["problems"][0]["what"]


def test_real_data_have_no_problems(real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    assert main(["data", "check", str(real_data / "voc-sample/VOCdevkit/VOC2012"), "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["data"] == "voc"
    assert {name: split["images"] for name, split in report["splits"].items()} == {"train": 3, "val": 3}
