"""Networks of several tasks, from the label files to the predictions: a miniature SIFT Flow in its own format."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from scipy.io import loadmat, savemat

from fcn.cli import main
from fcn.data import ArrayDataset, Augmentation, TaskDataset, read_labels, siftflow_tasks, training_loader
from fcn.data.preprocessing import IMAGENET, Preprocessing
from fcn.data.siftflow import GEOMETRIC_CLASSES, SCENES, SEMANTIC_CLASSES
from fcn.errors import ConfigError, DataError, Interrupted
from fcn.inference.predictor import Predictor
from fcn.networks.models import FCN, ModelConfig, build_model
from fcn.recipes.config import LossConfig, Recipe, load_recipe
from fcn.training.losses import Loss, labeled_pixels, median_frequency_weights, sampled_cells
from fcn.training.run import resume, train
from fcn.training.task import SegmentationTask
from fcn.weights import Weights, load_weights

RECIPE = Path(__file__).parents[2] / "fcn/recipes/library/siftflow_fcn8s_vgg16.yaml"
LABELS = {"semantic": "SemanticLabels", "geometric": "GeoLabels"}
CLASSES = {"semantic": SEMANTIC_CLASSES, "geometric": GEOMETRIC_CLASSES}
SKY, ROAD, BUILDING = (SEMANTIC_CLASSES.index(name) for name in ("sky", "road", "building"))


def write_scene(root: Path, name: str, height: int, random: np.random.Generator) -> None:
    """Sky over a road with a building; void along the left, more of it in the geometric labels."""
    image = random.integers(0, 40, (height, 64, 3))
    semantic, geometric = np.full((height, 64), ROAD + 1.0), np.full((height, 64), 2, np.int16)
    horizon, left = random.integers(15, height - 15), random.integers(8, 40)
    image[:horizon, :, 2] += 200
    semantic[:horizon], geometric[:horizon] = SKY + 1, 1
    house = slice(horizon - 10, horizon + 8), slice(left, left + 16)
    image[(*house, 0)] += 200
    semantic[house], geometric[house] = BUILDING + 1, 3
    semantic[:, :2], geometric[:, :5] = 0, -1
    Image.fromarray(image.astype(np.uint8)).save(root / "Images" / SCENES / f"{name}.jpg", quality=95)
    savemat(root / LABELS["semantic"] / SCENES / f"{name}.mat", {"S": semantic})
    savemat(root / LABELS["geometric"] / SCENES / f"{name}.mat", {"S": geometric})


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("siftflow")
    random = np.random.default_rng(0)
    for folder in ("Images", *LABELS.values()):
        (root / folder / SCENES).mkdir(parents=True)
    for split, count in (("trainval", 4), ("test", 2)):
        names = [f"{split}_{index}" for index in range(count)]
        for index, name in enumerate(names):
            write_scene(root, name, 48 + 7 * index * (split == "test"), random)
        (root / f"{split}.txt").write_text("\n".join(names))
    return root


SMALL = ["--model.backbone=small_batchnorm", "--model.dropout=0.2", "--model.pad=same", "--data.workers=0",
         "--optimizer.name=adamw", "--optimizer.rates_for=loss", "--loss.normalize=true", "--data.batch_size=2",
         "--stages.stride=[32,16]", "--stages.epochs=[1,2]", "--stages.lr=[0.003,0.003]",
         "--trainer.validate_every=1", "--data.augment.mirror=true", "--data.augment.crop=[40,56]"]  # fmt: skip


def small(scenes: Path, run_dir: Path, *options: str) -> Recipe:
    return load_recipe(RECIPE, [*SMALL, f"--data.root={scenes}", f"--trainer.run_dir={run_dir}", *options])


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the published recipe with a small network."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("tasks") / "run"
    train(small(scenes, run))
    return run


# --- Loss. ---


def random_model(**options: Any) -> FCN:
    torch.manual_seed(0)
    tasks = (("semantic", 4), ("geometric", 3))
    model = build_model(ModelConfig("small", stride=16, classes=7, tasks=tasks, **options)).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def random_batch() -> Any:
    random = np.random.default_rng(0)
    groups = []
    for images, size in ((2, (40, 50)), (1, (33, 20))):
        labels = [random.choice([*range(classes), 255], (images, *size)) for classes in (4, 3)]
        target = torch.from_numpy(np.stack(labels, 1).astype(np.uint8))
        groups.append({"image": torch.randn(images, 3, *size), "target": target})
    return groups


@pytest.mark.parametrize("kind", ["fused", "unfused"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_of_tasks_are_added(kind: Any, normalize: bool, weighted: bool) -> None:
    """Against the plain spelling, with cells drawn that both tasks share."""
    model, batch = random_model(), random_batch()
    weight = torch.rand(7) + 0.5 if weighted else None
    task_weights = {"geometric": 0.25} if weighted else {}
    torch.manual_seed(1)
    masks = [sampled_cells(group["target"], 16, 0.5) for group in batch]
    expected = torch.zeros(())
    for index, classes in enumerate((slice(0, 4), slice(4, 7))):
        total, count = torch.zeros(()), torch.zeros(())
        for group, mask in zip(batch, masks, strict=True):
            labels = group["target"][:, index].long()
            logits = list(model.task_scores(group["image"]).values())[index].logits()
            own = None if weight is None else weight[classes]
            total = total + (F.cross_entropy(logits, labels, own, ignore_index=255, reduction="none") * mask).sum()
            pixels = mask * (labels != 255)
            count = count + (pixels if own is None else pixels * own[labels.where(labels != 255, 0)]).sum()
        expected = expected + total / (count if normalize else 3) * (1.0, task_weights.get("geometric", 1.0))[index]
    config = LossConfig(normalize=normalize, sampling=0.5, kind=kind, task_weights=task_weights)
    torch.manual_seed(1)
    found = Loss(config, weight)(model, batch)
    torch.testing.assert_close(found, expected)
    parameters = list(model.parameters())
    for mine, theirs in zip(*(torch.autograd.grad(loss, parameters) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_weights_and_pixels_of_tasks(scenes: Path) -> None:
    data = siftflow_tasks(scenes, "trainval")
    parts = [median_frequency_weights(part) for part in data.tasks.values()]
    assert torch.equal(median_frequency_weights(data), torch.cat(parts))
    assert parts[0].count_nonzero() == parts[1].count_nonzero() == 3
    assert labeled_pixels(data, None) == 48 * (62 + 59) / 2
    assert labeled_pixels(data, (24, 32)) == pytest.approx(24 * 32 * (62 + 59) / 2 / 64)


def test_random_views_move_all_label_maps_with_the_image() -> None:
    """Labels that say which pixel of the image they are of."""
    rows, columns = np.mgrid[:20, :30].astype(np.uint8)
    image = np.stack([rows, columns, rows], 2)
    tasks = {
        name: ArrayDataset([{"image": image, "target": labels, "name": "a"}], [str(n) for n in range(30)], [])
        for name, labels in (("rows", rows), ("columns", columns))
    }
    view = Augmentation(mirror=True, jitter=3, crop=(16, 24))
    for seed in range(8):
        values = Preprocessing((0.0,) * 3, (1.0,) * 3, scale=1.0)
        loader = training_loader(TaskDataset(tasks), values, view, batch_size=1, seed=seed)
        ((group,),) = loader
        pixels, target = group["image"][0], group["target"][0]
        assert target.shape == (2, 16, 24)
        assert torch.equal(target[0] == 255, target[1] == 255)
        assert torch.equal(pixels[:2][target != 255], target[target != 255].float())


# --- Training. ---


def test_the_published_recipe_trains_both_heads(trained: Path) -> None:
    with (trained / "fcn16s/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = [f"{task}_{name}" for task in LABELS for name in
               ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu")]  # fmt: skip
    assert list(rows[0]) == ["epoch", "step", "train_loss", "val_loss", *metrics]
    weights = load_weights(trained / "best.safetensors")
    best = max(rows, key=lambda row: float(row["semantic_mean_iu"]))
    assert (weights.extra["epoch"], float(weights.extra["val_semantic_mean_iu"])) == (
        best["epoch"],
        pytest.approx(float(best["semantic_mean_iu"]), abs=1e-5),
    )
    assert weights.model.config.tasks == (("semantic", 33), ("geometric", 3))
    assert {name: task.classes for name, task in weights.tasks.items()} == CLASSES
    for task in weights.model.head.score_pool4.weight.split([33, 3]):  # type: ignore[operator,union-attr]
        assert task.any()
    assert weights.preprocessing.mean == (114.578, 115.294, 108.353)


def test_interrupted_and_resumed_run_ends_with_bit_identical_weights(
    trained: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SegmentationTask.training_step

    def press_ctrl_c(task: SegmentationTask, batch: Any, batch_idx: int) -> Any:
        if task.model.config.stride == 16 and task.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(task, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", press_ctrl_c)
        with pytest.raises(Interrupted):
            train(small(scenes, tmp_path / "run"))
    resume(tmp_path / "run")
    for name in ("fcn32s/best.safetensors", "best.safetensors"):
        expected, found = load_file(trained / name), load_file(tmp_path / "run" / name)
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    histories = [(run / "fcn16s/history.csv").read_text() for run in (trained, tmp_path / "run")]
    assert histories[0] == histories[1]


def test_a_task_without_labels_changes_nothing(scenes: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(scenes, tmp_path / "data"))
    for path in (root / LABELS["geometric"] / SCENES).iterdir():
        savemat(path, {"S": np.full_like(loadmat(path)["S"], -1)})
    options = ["--stages.stride=[32]", "--stages.epochs=[1]", "--stages.lr=[0.003]", "--loss.normalize=false"]
    states = {}
    for kind in ("siftflow", "siftflow_tasks"):
        recipe = small(root, tmp_path / kind, *options, f"--data.kind={kind}")
        states[kind] = load_weights(train(recipe)).model.state_dict()
    for name, expected in states["siftflow"].items():
        found = states["siftflow_tasks"][name]
        torch.testing.assert_close(found[: len(expected)] if found.dim() else found, expected, rtol=1e-4, atol=1e-6)
        assert "head" not in name or not found[33:].any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--loss.task_weights={semantics: 2}"], ConfigError, "no task 'semantics'; their tasks: semantic, geometric"),
        (["--loss.task_weights={a: 2}", "--data.kind=siftflow"], ConfigError, "no task 'a'; their tasks: only one"),
        (["--model.upsampling=dense"], ValueError, "dense upsampling would mix the tasks"),
    ],
)
def test_wrong_recipes_are_explained(
    scenes: Path, tmp_path: Path, options: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(small(scenes, tmp_path / "run", *options))


def test_the_first_task_ends_a_stage_and_equal_scores_are_told_by_task(scenes: Path, tmp_path: Path) -> None:
    options = ["--stages.stride=[32]", "--stages.epochs=[9]", "--stages.lr=[1e-12]", "--trainer.patience=2",
               "--loss.task_weights.semantic=3"]  # fmt: skip
    with pytest.warns(UserWarning, match=r"FCN-32s, semantic: the loss of a pixel is still 3\.4965, ln of the number"):
        train(small(scenes, tmp_path / "run", *options))
    rows = list(csv.DictReader((tmp_path / "run/fcn32s/history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[0]["val_loss"]) == pytest.approx(3 * np.log(33) + np.log(3), rel=1e-3)


def test_weights_of_tasks_must_be_positive(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss\.task_weights must be above 0"):
        small(scenes, tmp_path, "--loss.task_weights={semantic: 0}")


def test_both_tasks_are_learned(scenes: Path, tmp_path: Path) -> None:
    options = ["--stages.stride=[8]", "--stages.epochs=[30]", "--stages.lr=[0.005]", "--trainer.validate_every=30",
               "--data.augment.crop=null", "--loss.class_weights=median_frequency"]  # fmt: skip
    predictor = Predictor(train(small(scenes, tmp_path / "run", *options)))
    for metrics in predictor.evaluate_tasks(siftflow_tasks(scenes, "trainval"), progress=False).values():
        assert metrics.mean_iu > 0.7


# --- What is done with the weights. ---


def test_evaluate_and_predict(trained: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(trained / "best.safetensors")
    files = {name: tmp_path / f"{name}.{end}" for name, end in (("out", "json"), ("csv", "csv"), ("confusion", "png"))}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    data = ["--data.kind=siftflow_tasks", f"--data.root={scenes}"]
    assert main(["evaluate", weights, *data, *options, "--trimap", "2"]) == 0
    printed = capsys.readouterr().out
    result = json.loads(files["out"].read_text())

    out = tmp_path / "out"
    images = [str(path) for path in (scenes / "Images" / SCENES).glob("test_*.jpg")]
    assert main(["predict", weights, *images, "--out", str(out), "--precision", "float32"]) == 0
    assert {path.name for path in out.iterdir()} == {
        f"test_{n}_{task}{end}.png" for n in (0, 1) for task in LABELS for end in ("", "_overlay")
    }
    for task in LABELS:
        confusion = np.zeros((len(CLASSES[task]),) * 2, int)
        for n in (0, 1):
            truth = loadmat(scenes / LABELS[task] / SCENES / f"test_{n}.mat")["S"].astype(int) - 1
            found = read_labels(out / f"test_{n}_{task}.png", len(CLASSES[task]))
            np.add.at(confusion, (truth[truth >= 0], found[truth >= 0]), 1)
        scores = result["tasks"][task]
        assert scores["confusion"] == confusion.tolist()
        assert f"FCN-16s {task}" in printed
        assert f"{100 * scores['pixel_accuracy']:.1f}" in printed
        assert set(scores["trimap_iu"]) == {"2"}
        lines = (tmp_path / f"csv_{task}.csv").read_text().splitlines()
        assert [line.split(",")[0] for line in lines[1:]] == CLASSES[task]
        assert Image.open(tmp_path / f"confusion_{task}.png").format == "PNG"

    capsys.readouterr()
    assert main(["evaluate", weights, "--data.kind=siftflow", f"--data.root={scenes}", "--split", "test"]) == 2
    assert "the weights were trained for awning" in capsys.readouterr().err
    assert main(["info", weights]) == 0
    printed = capsys.readouterr().out
    assert "tasks semantic and geometric" in printed
    assert "geometric classes sky, horizontal, vertical" in printed


def test_predictor_gives_a_label_map_of_each_task() -> None:
    model = random_model()
    for score in (model.head.score(stream) for stream in model.head.streams):
        torch.nn.init.normal_(score.weight)
    classes, palette = list("abcdxyz"), [(0, 0, n) for n in range(7)]
    weights = Weights(model, classes, palette, IMAGENET, {})
    assert {name: "".join(task.classes) for name, task in weights.tasks.items()} == {
        "semantic": "abcd",
        "geometric": "xyz",
    }
    assert weights.tasks["geometric"].palette == palette[4:]
    images = [np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((70, 50), (33, 20))]
    for options in ({"precision": "float32"}, {"precision": "float32", "tile": 32}, {"precision": "bfloat16"}):
        predictor = Predictor(weights, "cpu", **options)  # type: ignore[arg-type]
        for image, labels in zip(images, predictor(images), strict=True):
            semantic, geometric = labels
            with torch.no_grad():
                scores = model.task_scores(IMAGENET(image)[None])
            least = 0.97 if "bfloat16" in options.values() else 0.999
            assert (semantic == scores["semantic"].labels()[0].numpy()).mean() >= least
            assert (geometric == scores["geometric"].labels()[0].numpy()).mean() >= least
            assert len(np.unique(geometric)) > 1
    with pytest.raises(ValueError, match="each of the tasks semantic, geometric: see evaluate_tasks"):
        predictor.evaluate(ArrayDataset([], classes, palette))


def test_data_check_of_both_labels(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = Path(shutil.copytree(scenes, tmp_path / "data")), tmp_path / "check.json"
    arguments = ["data", "check", str(root), "--out", str(out)]
    assert main(arguments) == 0
    found = json.loads(out.read_text())["splits"]["trainval"]
    assert found["images"] == 4
    for task, void in (("semantic", 0), ("geometric", -1)):
        stored = np.stack([loadmat(path)["S"] for path in (root / LABELS[task] / SCENES).glob("trainval*")])
        assert found["tasks"][task]["void"] == {str(void): int((stored == void).sum())}
        pixels = [int((stored == label + 1).sum()) for label in range(len(CLASSES[task]))]
        assert list(found["tasks"][task]["pixels"].values()) == pixels
    printed = capsys.readouterr().out
    assert "trainval geometric" in printed
    assert "semantic class" in printed

    (root / "Images" / SCENES / "test_0.jpg").write_bytes(b"junk")
    savemat(root / LABELS["geometric"] / SCENES / "test_1.mat", {"S": np.full((55, 64), 4)})
    assert main(arguments) == 1
    troubles = [(p["trouble"], p["what"]) for p in json.loads(out.read_text())["problems"]]
    assert [trouble for trouble, _ in troubles] == ["unreadable", "out of range"]  # the image is read and named once
    assert "4 (3520 pixels); wanted 1 to 3, or -1 for void" in troubles[1][1]


def test_tasks_must_be_of_the_same_images(scenes: Path) -> None:
    splits = {split: siftflow_tasks(scenes, split) for split in ("trainval", "test")}
    with pytest.raises(DataError, match="must have the same images"):
        TaskDataset(splits)


@pytest.mark.parametrize("experiment", ["upper-bound", "skips"])
def test_experiments_are_for_one_task(experiment: str, scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", experiment, "--data", str(RECIPE), "--set", f"data.root={scenes}"]) == 2
    assert "experiments are for one task; siftflow_tasks data have semantic, geometric" in capsys.readouterr().err
