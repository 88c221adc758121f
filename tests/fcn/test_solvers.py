"""What a recipe's solver means: rates, schedules, accumulated batches, averages, early stopping, several processes."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fcn.data import Augmentation, ShuffledBatches, folder
from fcn.errors import ConfigError, Interrupted
from fcn.networks.models import ModelConfig, build_model
from fcn.recipes.config import LossConfig, Recipe, load_recipe
from fcn.recipes.presets import preset_options
from fcn.training.losses import Loss, labeled_pixels
from fcn.training.run import resume, train
from fcn.training.task import SegmentationTask
from fcn.weights import load_weights

# Plain steps on whole images: two trainings that should be equal differ by rounding alone.
PLAIN = ["--model.backbone=small", "--model.dropout=0", "--optimizer.name=sgd", "--optimizer.schedule=constant",
         "--data.augment.scale=[1,1]", "--stages.stride=[16]", "--stages.epochs=[2]", "--stages.lr=[0.02]"]  # fmt: skip


def plain(recipe_file: Path, run_dir: Path, *options: str) -> Recipe:
    return load_recipe(recipe_file, [*PLAIN, f"--trainer.run_dir={run_dir}", *options])


def history(run: Path, stride: int = 16) -> list[dict[str, float]]:
    with (run / f"fcn{stride}s/history.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def last(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "fcn16s/last.ckpt", weights_only=True)["state_dict"]
    return {name: tensor for name, tensor in state.items() if name.startswith("model.")}


def assert_close(run: Path, other: Path) -> None:
    """Weights, metrics and losses of two trainings; the weights have moved by far more than they differ."""
    torch.testing.assert_close(last(run), last(other), rtol=1e-3, atol=1e-5)
    for row, expected in zip(history(run), history(other), strict=True):
        assert row == pytest.approx(expected, rel=1e-3)


def test_rates_meant_for_the_sum_serve_the_mean(recipe_file: Path, shapes: Path, tmp_path: Path) -> None:
    pixels = 48 * 64 - 5  # five of each image are void
    assert labeled_pixels(folder(shapes, "train"), None) == pixels
    assert labeled_pixels(folder(shapes, "train"), (24, 32)) == pytest.approx(pixels / 4)
    options = ["--optimizer.weight_decay=0.1", "--data.augment.crop=null"]
    train(plain(recipe_file, tmp_path / "mean", *options))
    for name, factor, normalize in (("sum", 1.0, "true"), ("mean", pixels, "false")):
        # Rates and decay written for one loss, used with the other: the steps of the mean's own.
        rate = f"--stages.lr=[{0.02 / pixels if name == 'sum' else 0.02}]"
        decay = f"--optimizer.weight_decay={0.1 * pixels if name == 'sum' else 0.1}"
        run = tmp_path / f"for_{name}"
        given = [*options, rate, decay, f"--optimizer.rates_for={name}", f"--loss.normalize={normalize}"]
        train(plain(recipe_file, run, *given))
        torch.testing.assert_close(last(run), last(tmp_path / "mean"), rtol=1e-3, atol=1e-5)
        assert history(run)[-1]["train_loss"] == pytest.approx(factor * history(tmp_path / "mean")[-1]["train_loss"])


def test_presets(recipe_file: Path) -> None:
    heavy = load_recipe(recipe_file, preset="heavy")
    assert (heavy.loss.normalize, heavy.optimizer.momentum, heavy.data.batch_size) == (False, 0.99, 1)
    assert heavy.stages.lr == pytest.approx([1e-10, 1e-12])
    normalised = load_recipe(recipe_file, preset="normalised")
    assert (normalised.loss.normalize, normalised.optimizer) == (True, heavy.optimizer)
    assert heavy.optimizer.rates_for == "sum"
    cvpr = load_recipe(recipe_file, ["--model.backbone=googlenet", "--optimizer.momentum=0.5"], "cvpr")
    assert (cvpr.stages.lr[0], cvpr.trainer.accumulate) == (5e-5, 20)
    assert cvpr.optimizer.momentum == 0.5  # what is given has the last word
    tasks = ["--data.kind=siftflow_tasks", "--stages.stride=[32,16,8]", "--stages.epochs=[1,1,1]"]
    staged = load_recipe(recipe_file, [*tasks, "--stages.lr=[1,1,1]"], "heavy")  # the lr of the command line is last
    assert staged.stages.lr == [1, 1, 1]
    assert preset_options("heavy", "vgg16", 3, several_tasks=True)[-1] == "--stages.lr=[1e-10,1e-12,1e-12]"
    assert preset_options("heavy", "vgg16", 3)[-1] == "--stages.lr=[1e-10,1e-12,1e-14]"
    assert load_recipe(recipe_file, ["--model.backbone=alexnet"], "heavy").optimizer.biases == "plain"
    assert load_recipe(recipe_file, ["--model.backbone=alexnet"], "cvpr").optimizer.biases == "doubled"
    with pytest.raises(ValueError, match="preset must be one of cvpr, heavy, normalised"):
        load_recipe(recipe_file, preset="light")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--optimizer.schedule=constant"], [1, 1, 1, 1]),
        (["--optimizer.schedule=poly"], [1, 0.5**0.9, 0.25**0.9, 0]),
        (["--optimizer.schedule=step", "--optimizer.milestones=[0.5,0.75]"], [1, 0.1, 0.01, 0.01]),
    ],
)
def test_schedules(recipe_file: Path, options: list[str], expected: list[float]) -> None:
    model = build_model(ModelConfig("small", 32, 3))
    task = SegmentationTask(
        model, Loss(LossConfig()), load_recipe(recipe_file, options).optimizer, lr=1.0, steps=8, seed=0
    )
    assert [task._rate(step) for step in (0, 4, 6, 8)] == pytest.approx(expected)


def test_accumulated_batches_make_the_step_of_a_large_one(recipe_file: Path, tmp_path: Path) -> None:
    train(plain(recipe_file, tmp_path / "large", "--data.batch_size=3"))
    train(plain(recipe_file, tmp_path / "small", "--data.batch_size=1", "--trainer.accumulate=3"))
    assert history(tmp_path / "small")[-1]["step"] == 4
    torch.testing.assert_close(last(tmp_path / "small"), last(tmp_path / "large"), rtol=1e-3, atol=1e-5)


def test_accumulation_averages_and_sampling_resume_bit_identically(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--data.batch_size=1", "--trainer.accumulate=2", "--trainer.average=0.5", "--model.dropout=0.5",
               "--loss.sampling=0.5", "--data.augment.jitter=4"]  # fmt: skip
    train(plain(recipe_file, tmp_path / "whole", *options))
    original = SegmentationTask.training_step

    def press_ctrl_c(task: SegmentationTask, batch: Any, batch_idx: int) -> Any:
        if task.trainer.current_epoch == 0 and batch_idx == 2:  # in the middle of the second step's batches
            os.kill(os.getpid(), signal.SIGINT)
        return original(task, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", press_ctrl_c)
        with pytest.raises(Interrupted):
            train(plain(recipe_file, tmp_path / "halves", *options))
    assert torch.load(tmp_path / "halves/fcn16s/last.ckpt", weights_only=True)["global_step"] == 2
    resume(tmp_path / "halves")
    expected, found = (load_file(tmp_path / run / "best.safetensors") for run in ("whole", "halves"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert history(tmp_path / "halves") == history(tmp_path / "whole")


def test_the_average_of_the_weights_is_what_is_kept(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    original = SegmentationTask.optimizer_step

    def note(task: SegmentationTask, *arguments: Any, **options: Any) -> None:
        original(task, *arguments, **options)
        seen.append(task.model.state_dict()["head.score_fr.weight"].clone())

    monkeypatch.setattr(SegmentationTask, "optimizer_step", note)
    options = ["--trainer.average=0.9", "--stages.epochs=[1]", "--data.batch_size=2"]
    kept = load_weights(train(plain(recipe_file, tmp_path / "run", *options))).model.state_dict()
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.9 * expected + 0.1 * weight
    assert len(seen) == 3
    torch.testing.assert_close(kept["head.score_fr.weight"], expected)
    assert not torch.allclose(expected, seen[-1])


def test_a_stage_ends_early_and_equal_scores_are_told(recipe_file: Path, tmp_path: Path) -> None:
    """At a rate of almost nothing the mean IU never rises, and the loss stays at ln 3."""
    options = ["--stages.lr=[1e-12]", "--stages.epochs=[20]", "--trainer.patience=2"]
    with pytest.warns(UserWarning, match=r"FCN-16s: the loss of a pixel is still 1\.0986, ln of the number") as found:
        train(plain(recipe_file, tmp_path / "run", *options))
    assert len(found) == 1
    rows = history(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1]["val_loss"] == pytest.approx(math.log(3), rel=1e-4)


def test_no_warning_where_something_is_learned(recipe_file: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*loss of a pixel")
        train(plain(recipe_file, tmp_path / "run", "--loss.normalize=false", "--stages.lr=[1e-5]"))


def test_mixed_precision_learns_the_same(recipe_file: Path, tmp_path: Path) -> None:
    options = ["--trainer.deterministic=true", "--stages.lr=[0.002]"]  # larger steps would magnify any rounding
    for precision in ("32-true", "bf16-mixed"):
        train(plain(recipe_file, tmp_path / precision, f"--trainer.precision={precision}", *options))
    exact, mixed = (history(tmp_path / precision)[-1] for precision in ("32-true", "bf16-mixed"))
    assert mixed["val_loss"] == pytest.approx(exact["val_loss"], rel=0.02)
    assert mixed["val_loss"] != exact["val_loss"]
    assert {tensor.dtype for tensor in last(tmp_path / "bf16-mixed").values()} == {torch.float32}


def test_two_processes_train_as_one(recipe_file: Path, tmp_path: Path) -> None:
    """A batch of 2 is shared; its loss is that of all its pixels. The second stage starts from what the first wrote."""
    options = ["--stages.stride=[32,16]", "--stages.epochs=[1,1]", "--stages.lr=[0.02,0.02]"]
    train(plain(recipe_file, tmp_path / "one", *options))
    command = [sys.executable, "-m", "fcn", "train", str(recipe_file), *PLAIN, *options]
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [*command, f"--trainer.run_dir={tmp_path / 'two'}", "--trainer.devices=2", "--trainer.accelerator=cpu"],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Best weights") == 1
    assert_close(tmp_path / "two", tmp_path / "one")
    assert not list((tmp_path / "two").rglob("*.tmp"))


def test_processes_share_every_batch() -> None:
    for samples, size in ((7, 3), (6, 3), (8, 4)):
        whole = ShuffledBatches(samples, size, seed=1)
        shares = [ShuffledBatches(samples, size, 1, 0, rank, 2) for rank in (0, 1)]
        assert len(shares[0]) == len(shares[1]) == samples // size  # seven: the last has one image, for two processes
        for batch, first, second in zip(whole, *shares, strict=False):
            assert sorted(first + second) == sorted(batch)
            assert first
            assert second


def test_a_process_without_images_is_an_error(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size: 2 cannot be shared by 3 processes"):
        train(plain(recipe_file, tmp_path / "run", "--trainer.devices=3"))


def test_jitter_shifts_image_and_labels_together() -> None:
    image = torch.arange(1.0, 61.0).view(1, 6, 10)
    target = image[0].to(torch.uint8)
    shifts = set()
    for seed in range(40):
        moved, labels = Augmentation(jitter=2).cut(image, target, np.random.default_rng(seed))
        assert moved.shape == image.shape
        assert torch.equal(moved[0] == 0, labels == 255)
        assert torch.equal(moved[0][labels != 255], labels[labels != 255].float())
        shifts.add(tuple((labels == target[3, 5]).nonzero()[0].tolist()))
    assert min(shifts) == (1, 3)
    assert max(shifts) == (5, 7)
    assert len(shifts) > 15
    with pytest.raises(ValueError, match=r"augment\.jitter must be 0 to 8192 pixels"):
        Augmentation(jitter=-1)
