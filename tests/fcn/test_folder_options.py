"""Options of the kind ``folder``, for what its layouts and tables do not cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn.cli import main
from fcn.data import folder
from fcn.errors import DataError
from fcn.recipes.config import load_data_config


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def fill(root: Path, image: str, mask: str, count: int = 10, values: tuple[int, ...] = (0, 1)) -> None:
    """Images and masks by two forms of paths, with ``{}`` for their numbers."""
    for number in range(count):
        save(root / image.format(number), np.full((6, 8, 3), number, np.uint8))
        target = np.full((6, 8), values[0], np.uint8)
        target[number % 6] = values[-1]
        save(root / mask.format(number), target)


def names(root: Path, split: str, **options: object) -> list[str]:
    return [sample["name"] for sample in folder(root, split, **options)]  # type: ignore[arg-type]


def test_patterns_find_images_and_masks_in_one_folder_and_in_any_nesting(tmp_path: Path) -> None:
    fill(tmp_path, "day{}/cam/x.jpg", "day{}/cam/x_L.png")
    given = {"images": "**/*.jpg", "masks": "**/*_L.png"}
    data = folder(tmp_path, "train", **given)  # type: ignore[arg-type]
    assert len(data) == 8
    assert all(mask == image.with_name("x_L.png") for image, mask in data.pairs)
    np.testing.assert_array_equal(data[3]["target"][:, 0], [0, 0, 0, 1, 0, 0])
    assert sum(len(folder(tmp_path, split, **given)) for split in ("train", "val", "test")) == 10  # type: ignore[arg-type]


def test_patterns_with_splits_and_with_lists(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("valid", 2)):
        fill(tmp_path, f"photos_{split}/{{}}.png", f"truth/{split}/{{}}-gt.png", count, (0, count))
    given = {"images": "photos_{split}/*", "masks": "truth/{split}/*-gt.png"}
    assert names(tmp_path, "train", **given) == ["0", "1", "2", "3"]
    val = folder(tmp_path, "val", **given)  # type: ignore[arg-type]
    assert [sample["name"] for sample in val] == ["0", "1"]
    assert "'valid' is taken as the split val" in val.notes[0]
    assert len(val.classes) == 5  # counted in the masks of all splits
    with pytest.raises(DataError, match="split 'test' not found"):
        folder(tmp_path, "test", **given)  # type: ignore[arg-type]
    (tmp_path / "mine.txt").write_text("3.png\n1\n")
    assert names(tmp_path, "mine", images="photos_train/*", masks="truth/train/*-gt.png") == ["3", "1"]
    (tmp_path / "mine.txt").write_text("9\n")
    with pytest.raises(DataError, match=r"mine\.txt: no image matches 'photos_train/\*' for '9'"):
        names(tmp_path, "mine", images="photos_train/*", masks="truth/train/*-gt.png")


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ("images/*.jpg", "masks", "must both be folders or both patterns"),
        ("images/*.jpg", "**/*.png", r"must have the same \* and \*\*"),
        ("images/*.tif", "masks/*.png", "no image matches 'images/\\*.tif'"),
        ("images/*.jpg", "masks/*_x.png", "no image has a mask: 2 files match 'images/\\*.jpg', 0 match"),
        ("im*ges/*", "m*/*.png", "no image has a mask"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(tmp_path: Path, images: str, masks: str, message: str) -> None:
    fill(tmp_path, "images/{}.jpg", "masks/{}.png", 2)
    with pytest.raises(DataError, match=message):
        folder(tmp_path, "train", images, masks)


def test_two_files_for_one_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "images/{}.jpg", "masks/{}.png", 2)
    fill(tmp_path, "images/{}.jpeg", "masks/{}.png", 2)
    with pytest.raises(DataError, match=r"'images/\*': .*0\.jpeg and .*0\.jpg are as good"):
        folder(tmp_path, "train", "images/*", "masks/*")


@pytest.mark.parametrize("colors", [False, True])
def test_classes_by_option(tmp_path: Path, colors: bool, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, "images/{}.png", "masks/{}.png", values=(40, 200))
    given = "{ground: 40, void: 7, pond: 200}"
    if colors:
        given = "{ground: [9, 0, 40], pond: [200, 0, 0]}"
        table = np.zeros((256, 3), np.uint8)
        table[40], table[200] = (9, 0, 40), (200, 0, 0)
        for path in (tmp_path / "masks").iterdir():
            save(path, table[np.asarray(Image.open(path))])
    options = [f"--data.root={tmp_path}", "--data.kind=folder", f"--data.classes={given}"]
    data = load_data_config(options).dataset("train")
    assert data.classes == ["ground", "pond"]
    np.testing.assert_array_equal(data[3]["target"][:, 0], [0, 0, 0, 1, 0, 0])
    assert data.palette == ([(9, 0, 40), (200, 0, 0)] if colors else [(0, 0, 0), (128, 0, 0)])
    assert main(["data", "check", str(tmp_path), f"--data.classes={given}"]) == 0
    assert "ground" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": 300}, "a must be a value from 0 to 255 or a color"),
        ({"a": [1, 2]}, "a must be a value from 0 to 255 or a color"),
        ({"a": 1, "b": 1}, "'a' and 'b' have one color"),
        ({"void": 1}, "no class"),
    ],
)
def test_classes_that_are_none_are_refused(tmp_path: Path, given: dict[str, object], message: str) -> None:
    fill(tmp_path, "images/{}.png", "masks/{}.png")
    with pytest.raises(DataError, match=message):
        folder(tmp_path, "train", classes=given)


def test_ratio_and_seed(tmp_path: Path) -> None:
    fill(tmp_path, "images/{:02d}.png", "masks/{:02d}.png", 20)
    everything = [f"{number:02d}" for number in range(20)]
    by_name = [names(tmp_path, split, ratio=[0.5, 0.25, 0.25]) for split in ("train", "val", "test")]
    assert by_name == [everything[:10], everything[10:15], everything[15:]]
    parts = [names(tmp_path, split, ratio=[0.5, 0.25, 0.25], seed=1) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [10, 5, 5]
    assert sorted(name for part in parts for name in part) == everything
    assert parts[0] != by_name[0]
    assert parts[0] == names(tmp_path, "train", ratio=[0.5, 0.25, 0.25], seed=1)
    assert parts[0] != names(tmp_path, "train", ratio=[0.5, 0.25, 0.25], seed=2)
    for ratio in ([0.5, 0.5], [0.9, 0.9, -0.8], [1, 1, 1]):
        with pytest.raises(DataError, match=r"data\.ratio must be three parts"):
            folder(tmp_path, "train", ratio=ratio)
    with pytest.raises(DataError, match="split 'test' would be empty"):
        folder(tmp_path, "test", ratio=[0.9, 0.1, 0])


def test_names_with_colors(tmp_path: Path) -> None:
    fill(tmp_path, "images/{}.png", "masks/{}.png")
    (tmp_path / "classes.txt").write_text("wide road #804080\nC# code #0000ff\n")
    data = folder(tmp_path, "train")
    assert data.classes == ["wide road", "C# code"]
    assert data.palette == [(128, 64, 128), (0, 0, 255)]
    (tmp_path / "classes.txt").write_text("road\npond #0000ff\n")
    data = folder(tmp_path, "train")
    assert data.classes == ["road", "pond"]
    assert data.palette == [(0, 0, 0), (128, 0, 0)]  # not all have one


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.csv", "id,name\n40,ground\n200,pond\n"),
        ("_classes.csv", "Pixel Value, Class\n40, ground\n200, pond\n"),
        ("class_dict.csv", "name,r,g,b\nground,40,40,40\npond,200,200,200\n"),
    ],
)
def test_tables_of_values(tmp_path: Path, name: str, text: str) -> None:
    fill(tmp_path, "images/{}.png", "masks/{}.png", values=(40, 200))
    (tmp_path / name).write_text(text)
    data = folder(tmp_path, "train")
    assert data.classes == ["ground", "pond"]
    assert data.palette == [(0, 0, 0), (128, 0, 0)]  # grays are no colors for the eye
    assert set(np.unique(data[0]["target"])) == {0, 1}
