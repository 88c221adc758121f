"""``fcn train FOLDER``: what is chosen, what is said, and the page at the end."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fcn.cli import main
from fcn.data import KINDS, ArrayDataset, Kind, TaskDataset, folder
from fcn.data.survey import Survey, described, survey
from fcn.evaluation.collapse import classes_never_found, one_class_everywhere
from fcn.evaluation.metrics import metrics_from_confusion
from fcn.evaluation.overlays import blend
from fcn.recipes.automatic import Cost, plan
from fcn.recipes.config import DataConfig, Recipe, load_recipe
from fcn.training import automatic
from fcn.training.automatic import numbered
from fcn.training.run import train


def arrays(*targets: np.ndarray, classes: int = 3) -> ArrayDataset:
    samples = [{"image": np.zeros((*each.shape, 3), np.uint8), "target": each, "name": "a"} for each in targets]
    return ArrayDataset(samples, [f"class {n}" for n in range(classes)], [(0, 0, 0)] * classes)


def test_survey_counts_what_masks_hold() -> None:
    target = np.zeros((60, 80), np.uint8)
    target[:, 40:42] = 1  # a line
    target[:, 60:] = 2
    target[:6] = 255
    found = survey(arrays(target, np.full((20, 20), 255, np.uint8)))
    assert (found.images, found.size, found.largest, found.channels) == (2, (40, 50), 80, 3)
    assert found.shares == pytest.approx([58 / 80, 2 / 80, 20 / 80])
    assert found.void == pytest.approx((6 * 80 + 400) / (4800 + 400))
    assert found.thin[1] == 1.0
    assert found.thin[2] == pytest.approx(4 / 20)  # its four columns next to class 0; void is no neighbor
    assert np.isnan(survey(arrays(target, classes=4)).thin[3])
    lines = " ".join(described(found, ["wall", "crack", "door"]))
    assert "2 images of about 50 x 40 pixels" in lines
    assert "wall 72.5 %, door 25 %, crack 2.5 %; 16.9 % of all pixels are void" in lines


def test_survey_sees_what_the_network_will_see() -> None:
    target = np.zeros((400, 400), np.uint8)
    target[:, 100:112] = 1  # 12 pixels wide, and 3 when reduced
    assert survey(arrays(target)).thin[1] < 0.9
    assert survey(arrays(target), longest_side=100).thin[1] == 1.0


USUAL = Survey(100, (480, 640), 640, 3, [0.6, 0.4], 0.0, [0.1, 0.1])


def planned(found: Survey = USUAL, longest_side: int | None = None, **changes: Any) -> tuple[Recipe, str]:
    options = {"minutes": 10, "knows_images": True, "workers": 1, "measured": lambda _: Cost(1.0, 10.0)} | changes
    made = plan(DataConfig("folder", root="data", longest_side=longest_side), found, "runs/a", **options)
    assert made.minutes <= options["minutes"] * 1.05 or made.recipe.stages.epochs == [1]
    return made.recipe, "\n".join(made.reasons)


def test_plan_fits_the_minutes() -> None:
    recipe, _ = planned()
    # 600 s less 12 validations of 10 s leave 480 steps, 36 epochs of 13; a validation every 3 epochs.
    assert (recipe.data.batch_size, recipe.stages.epochs, recipe.trainer.validate_every) == (8, [36], 3)
    assert planned(minutes=100)[0].stages.epochs[0] > 300
    assert planned(minutes=0.01)[0].stages.epochs == [1]
    assert planned(measured=lambda _: Cost(1e-6, 0.0))[0].stages.epochs[0] * 13 <= 20_000
    assert recipe.optimizer.warmup == 46


def test_plan_is_made_of_what_the_data_hold() -> None:
    recipe, reasons = planned()
    assert (recipe.model.backbone, recipe.data.preprocessing) == ("efficientnet_lite0", "efficientnet_lite")
    assert (recipe.stages.stride, recipe.loss.class_weights) == ([8], "none")
    assert recipe.data.augment.crop == (320, 320)
    assert "ImageNet" in reasons
    recipe, reasons = planned(knows_images=False)
    assert (recipe.model.backbone, recipe.data.preprocessing) == ("small_batchnorm", "fit")
    assert "fcn-kernels[pretrained]" in reasons
    thin = Survey(100, (480, 640), 640, 3, [0.98, 0.02], 0.0, [0.1, 1.0])
    recipe, reasons = planned(thin)
    assert (recipe.stages.stride, recipe.loss.class_weights) == ([4], "root_median_frequency")
    assert "stride 4" in reasons
    assert "rare classes" in reasons
    small = Survey(9, (50, 1000), 1000, 6, [1.0, 0.0], 0.0, [0.1, float("nan")])
    recipe, reasons = planned(small, longest_side=768)
    assert (recipe.model.backbone, recipe.data.batch_size) == ("small_batchnorm", 2)
    assert recipe.data.augment.crop == (32, 320)
    assert (recipe.stages.stride, recipe.loss.class_weights) == ([8], "none")
    assert "reduced to 768 pixels" in reasons


def test_several_tasks_are_planned_by_the_first(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(root: Path, split: str) -> TaskDataset:
        return TaskDataset({"things": folder(root, split), "again": folder(root, split)})

    monkeypatch.setitem(KINDS, "several", Kind(load, ("classes.txt",)))
    monkeypatch.setattr(automatic, "recognize", lambda _: "several")
    monkeypatch.setattr(automatic, "measured", lambda *_, **__: Cost(1.0, 0.0))
    lines: list[str] = []
    automatic.plan_for(shapes, 1.0, tmp_path / "run", lines.append)
    assert "6 images of about 64 x 48 pixels" in lines
    assert any(line.startswith("3 classes by their part of the labeled pixels: ground") for line in lines)


def test_runs_are_numbered(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        folder = numbered(tmp_path / "a")
        folder.mkdir()
        names.append(folder.name)
    assert names == ["a", "a-2", "a-3"]


def test_a_folder_is_trained_on(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(automatic, "_installed", lambda _: False)
    monkeypatch.setattr(automatic, "measured", lambda *_, **__: Cost(1.0, 0.0))
    options = ["--minutes", "0.2", "--trainer.seed", "5"]
    assert main(["train", str(shapes), *options]) == 0
    said = capsys.readouterr().out
    assert "6 images of about 64 x 48 pixels" in said
    assert "3 classes by their part of the labeled pixels: ground" in said
    assert "2 further images (val) say which weights are best" in said
    assert "minutes, in runs/" in said
    assert "report.html" in said
    run = tmp_path / "runs" / shapes.name
    recipe = load_recipe(run / "recipe.yaml")
    assert (recipe.trainer.seed, recipe.data.root) == (5, str(shapes))
    assert sorted(path.name for path in run.iterdir() if path.name[0] != ".") == [
        "batch.png", "best.safetensors", "confusion.png", "curves.png", f"fcn{recipe.stages.stride[0]}s", "recipe.yaml",
        "report.html",
    ]  # fmt: skip
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r"data:image/png;base64,[^']*", "", page)
    assert page.count("<img") == 3 * 5 + 2
    for text in ("mean IU", "ground", "square", "disk", "best: ", "worst: ", f"fcn predict runs/{shapes.name} IMAGES"):
        assert text in page
    assert main(["evaluate", str(run)]) == 0
    # The same again gives another folder, and the same weights.
    assert main(["train", str(shapes), *options]) == 0
    again = run.with_name(f"{run.name}-2")
    assert (again / "best.safetensors").read_bytes() == (run / "best.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DATA", "--preset", "heavy"], "--preset is for recipes"),
        (["camvid_fcn8s_small", "--minutes", "3"], "--minutes is for a folder of data"),
        (["DATA", "--minutes", "0"], "minutes must be above 0 and finite, got 0"),
        (["DATA", "--minutes", "inf"], "minutes must be above 0 and finite, got inf"),
        (["RUN"], "a run's folder; to go on with it: fcn train --resume"),
        (["EMPTY"], "split 'train' not found"),
        (["FEW"], "4 images to train on and 0 to validate|too few to divide"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    arguments: list[str],
    message: str,
    shapes: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("images", "masks"):
        shutil.copytree(shapes / "train" / name, tmp_path / "few" / name)
        for path in sorted((tmp_path / "few" / name).iterdir())[4:]:
            path.unlink()
    places = {"DATA": shapes, "RUN": finished, "EMPTY": tmp_path / "empty", "FEW": tmp_path / "few"}
    assert main(["train", *(str(places.get(word, word)) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_without_a_split_for_validation_the_test_serves(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shapes, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/val")
    monkeypatch.setattr(automatic, "measured", lambda *_, **__: Cost(1.0, 0.0))
    lines: list[str] = []
    made = automatic.plan_for(tmp_path / "data", 1.0, tmp_path / "run", lines.append)
    assert made.recipe.data.val_split == "test"
    assert any("their scores flatter" in line for line in lines)


@pytest.mark.parametrize("numbered_names", [True, False])
def test_images_without_splits_are_divided(
    numbered_names: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "measured", lambda *_, **__: Cost(1.0, 0.0))
    random = np.random.default_rng(0)
    for index in range(20):
        stem = f"clip_{index:04}" if numbered_names else f"{random.integers(1 << 40):x}x"
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(random.integers(0, 2, (40, 40), dtype=np.uint8)).save(tmp_path / name / f"{stem}.png")
    lines: list[str] = []
    made = automatic.plan_for(tmp_path, 1.0, tmp_path / "run", lines.append)
    assert made.recipe.data.split_seed == (None if numbered_names else 0)
    assert any(("in blocks by name" if numbered_names else "by a hash of their names") in line for line in lines)
    splits = [made.recipe.data.dataset(split) for split in ("train", "val", "test")]
    names = [[sample["name"] for sample in split] for split in splits]  # type: ignore[attr-defined]
    assert list(map(len, names)) == [16, 2, 2]
    order = [name for split in names for name in split]
    assert (order == sorted(order)) == numbered_names  # blocks, or not


def test_collapse_is_named() -> None:
    def metrics(*rows: list[int]) -> Any:
        return metrics_from_confusion(torch.tensor(rows))

    names = ["wall", "crack"]
    assert "every pixel is labeled 'wall'" in str(one_class_everywhere(metrics([90, 0], [10, 0]), names))
    assert "'crack': not a pixel is found" in str(classes_never_found(metrics([90, 1], [10, 0]), names))
    for fine in (metrics([90, 0], [9, 1]), metrics([90, 0], [0, 0])):
        assert one_class_everywhere(fine, names) is None
        assert classes_never_found(fine, names) is None


def test_collapse_is_said_while_it_trains(recipe_file: Path) -> None:
    options = ["--stages.stride=[32]", "--stages.epochs=[2]", "--stages.lr=[1e-4]", "--optimizer.schedule=constant"]
    with pytest.warns(UserWarning, match=r"FCN-32s: every pixel is labeled 'ground': nothing else is learned"):
        train(load_recipe(recipe_file, options))


def test_black_stays_clear() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    labels = np.array([[0, 1], [255, 0]], np.uint8)
    mixed = blend(image, labels, [(0, 0, 0), (255, 0, 0)])
    assert (mixed[labels != 1] == 100).all()
    assert (mixed[0, 1] == [185, 45, 45]).all()
    assert Image.fromarray(mixed).size == (2, 2)
