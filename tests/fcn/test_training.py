from __future__ import annotations

import csv
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file

from fcn.data import KINDS, ArrayDataset, collate, folder
from fcn.data.preprocessing import IMAGENET
from fcn.demo import DEMO_RECIPE
from fcn.errors import ConfigError, Interrupted
from fcn.inference.predictor import Predictor
from fcn.networks.backbones import BACKBONES
from fcn.networks.models import FCN, ModelConfig, build_model
from fcn.recipes.config import LossConfig, Recipe, load_data_config, load_recipe, save_recipe
from fcn.training.losses import Loss, median_frequency_weights, sampled_cells
from fcn.training.run import resume, train
from fcn.training.task import SegmentationTask
from fcn.weights import load_weights


@pytest.fixture
def model() -> FCN:
    torch.manual_seed(0)
    model = build_model(ModelConfig("small", stride=16, classes=3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # scoring layers start at zero
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def pairs(shapes: Path, indices: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    data = folder(shapes, "test")
    return [(IMAGENET(data[i]["image"]), torch.from_numpy(data[i]["target"].copy())) for i in indices]


@pytest.mark.parametrize("weighted", [False, True])
def test_batch_of_different_sizes_gives_loss_and_gradient_of_each_alone(
    model: FCN, shapes: Path, weighted: bool
) -> None:
    weight = torch.tensor([0.2, 1.0, 3.0]) if weighted else None
    samples = pairs(shapes, (0, 1, 2, 1))
    parameters = list(model.parameters())
    losses = [Loss(LossConfig(normalize=normalize), weight)(model, collate(samples)) for normalize in (True, False)]
    gradients = [torch.autograd.grad(loss, parameters) for loss in losses]
    sums, counts = torch.zeros(()), 0.0
    for image, target in samples:
        logits = model(image[None])
        sums += torch.nn.functional.cross_entropy(
            logits, target[None].long(), weight, ignore_index=255, reduction="sum"
        )
        labeled = target[target != 255].long()
        counts += float((weight if weight is not None else torch.ones(3))[labeled].sum())
    alone = torch.autograd.grad(sums, parameters)
    for loss, gradient, divisor in zip(losses, gradients, (counts, 4), strict=True):
        torch.testing.assert_close(loss, sums / divisor)
        for together, one_by_one in zip(gradient, alone, strict=True):
            assert together.any()
            expected = one_by_one / divisor
            torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_unfused_loss_and_gradient_are_those_of_the_fused(model: FCN, shapes: Path) -> None:
    batch = collate(pairs(shapes, (0, 2)))
    results = []
    for kind in ("fused", "unfused"):
        model.zero_grad()
        loss = Loss(LossConfig(kind=kind))(model, batch)  # type: ignore[arg-type]
        loss.backward()
        results.append((loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]))  # type: ignore[union-attr]
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_a_batch_of_void_has_no_loss_and_no_gradient(model: FCN) -> None:
    batch = [{"image": torch.randn(2, 3, 40, 40), "target": torch.full((2, 40, 40), 255, dtype=torch.uint8)}]
    loss = Loss(LossConfig())(model, batch)  # type: ignore[arg-type]
    loss.backward()
    assert loss == 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["fused", "unfused"])
@pytest.mark.parametrize("weighted", [False, True])
def test_sampled_loss_is_that_of_the_cells_drawn(model: FCN, shapes: Path, kind: Any, weighted: bool) -> None:
    batch = collate(pairs(shapes, (0, 1)))
    weight = torch.tensor([0.2, 1.0, 3.0]) if weighted else None
    torch.manual_seed(1)
    masks = [sampled_cells(group["target"], 16, 0.4) for group in batch]
    total, divisor = 0.0, 0.0
    for group, mask in zip(batch, masks, strict=True):
        target = group["target"].long().masked_fill(mask == 0, 255)
        total += F.cross_entropy(model(group["image"]), target, weight, ignore_index=255, reduction="sum").item()
        labeled = target[target != 255]
        divisor += float((torch.ones(3) if weight is None else weight)[labeled].sum())
    for normalize, expected in ((True, total / divisor), (False, total / 0.4 / 2)):
        loss = Loss(LossConfig(normalize=normalize, sampling=0.4, kind=kind), weight)
        torch.manual_seed(1)
        assert loss(model, batch).item() == pytest.approx(expected, rel=1e-5)
        whole = Loss(LossConfig(normalize=normalize, kind=kind), weight)
        torch.testing.assert_close(loss.eval()(model, batch), whole(model, batch))  # never in validation


def test_sampled_cells() -> None:
    weights = sampled_cells(torch.zeros(50, 20, 33, dtype=torch.uint8), 8, 0.25)
    assert weights.shape == (50, 20, 33)
    assert weights.unique().tolist() == [0, 4]
    assert 0.9 < weights.mean() < 1.1
    cells = torch.nn.functional.pad(weights, (0, 7, 0, 4), mode="replicate").unfold(1, 8, 8).unfold(2, 8, 8)
    assert torch.equal(cells.amin((3, 4)), cells.amax((3, 4)))


def test_a_head_trained_alone_leaves_the_trunk_as_it_was(recipe_file: Path) -> None:
    overrides = ["--model.tune=head", "--model.backbone=small", "--stages.stride=[32]", "--stages.epochs=[1]"]
    recipe = load_recipe(recipe_file, [*overrides, "--stages.lr=[0.1]"])
    trained = load_weights(train(recipe)).model.state_dict()
    torch.manual_seed(np.random.SeedSequence([recipe.trainer.seed, 32]).generate_state(1)[0].item())
    for name, start in build_model(ModelConfig("small", 32, 3)).state_dict().items():
        assert torch.equal(start, trained[name]) == name.startswith("backbone"), name


def test_median_frequency_weights() -> None:
    def sample(labels: list[int]) -> Any:
        return {"image": np.zeros((1, len(labels), 3), np.uint8), "target": np.array([labels], np.uint8), "name": ""}

    data = ArrayDataset([sample([0, 0, 0, 1, 255]), sample([0, 0, 2, 2])], list("abcd"), [(0, 0, 0)] * 4)
    # Frequencies 5/8, 1/4 (in the first image), 2/4 (in the second); their median is 1/2; the last class never occurs.
    torch.testing.assert_close(median_frequency_weights(data), torch.tensor([0.8, 2.0, 1.0, 0.0]))


def test_settings_of_the_process_are_as_before(recipe: Recipe) -> None:
    train(recipe)
    assert not torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic
    assert settings.fill_uninitialized_memory


def test_staged_run_writes_everything(recipe: Recipe) -> None:
    weights = train(recipe)
    run = Path(recipe.trainer.run_dir)
    assert weights == run / "best.safetensors"
    assert weights.read_bytes() == (run / "fcn16s/best.safetensors").read_bytes()
    for stride in (32, 16):
        loaded = load_weights(run / f"fcn{stride}s/best.safetensors")
        assert loaded.model.config.stride == stride
        assert loaded.classes == ["ground", "square", "disk"]
        with (run / f"fcn{stride}s/history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [int(row["step"]) for row in rows] == [3, 6]
        best = max(rows, key=lambda row: float(row["mean_iu"]))
        assert loaded.extra["epoch"] == best["epoch"]
        assert float(loaded.extra["val_mean_iu"]) == pytest.approx(float(best["mean_iu"]), abs=1e-5)
        assert list((run / f"fcn{stride}s").glob("events.*"))
    assert not list(run.rglob("*.tmp"))
    assert load_recipe(run / "recipe.yaml") == recipe
    with pytest.raises(ConfigError, match="already holds a run; resume it with"):
        train(recipe)
    resume(run)  # a finished run is left as it is
    assert weights.read_bytes() == (run / "fcn16s/best.safetensors").read_bytes()


def test_next_stage_starts_from_the_best_weights_of_the_one_before(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    initial: dict[int, dict[str, torch.Tensor]] = {}

    def note(task: SegmentationTask) -> None:
        initial[task.model.config.stride] = {name: t.clone() for name, t in task.model.state_dict().items()}

    monkeypatch.setattr(SegmentationTask, "on_train_start", note)
    train(recipe)
    before = load_weights(Path(recipe.trainer.run_dir) / "fcn32s/best.safetensors").model.state_dict()
    assert set(initial[16]) - set(before) == {"head.score_pool4.weight", "head.score_pool4.bias"}
    assert all(torch.equal(initial[16][name], tensor) for name, tensor in before.items())
    assert not initial[16]["head.score_pool4.weight"].any()


def final_state(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "fcn16s/last.ckpt", weights_only=True)["state_dict"]
    return state


def assert_same_weights(one: Path, two: Path) -> None:
    """Bit for bit: the last weights, and the best of both stages."""
    states = [(final_state(one), final_state(two))]
    for path in ("fcn32s/best.safetensors", "fcn16s/best.safetensors", "best.safetensors"):
        states.append((load_file(one / path), load_file(two / path)))
    for expected, found in states:
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.fixture(scope="module")
def uninterrupted(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(recipe file, run folder) of a run that nothing stopped."""
    from conftest import RECIPE

    folder = tmp_path_factory.mktemp("uninterrupted")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(root=shapes, run_dir=folder / "run"))
    torch.set_num_threads(1)
    train(load_recipe(path))
    return path, folder / "run"


# Steps of a stage: 0 1 2 | 3 4 5. Ctrl-C within the first epoch, at its last step, within the second, at the very end.
@pytest.mark.parametrize(("stride", "step"), [(32, 0), (32, 2), (32, 4), (32, 5), (16, 1), (16, 5)])
def test_interrupted_and_resumed_run_ends_with_bit_identical_weights(
    uninterrupted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int, step: int
) -> None:
    recipe_file, reference = uninterrupted
    recipe = load_recipe(recipe_file, ["--trainer.run_dir", str(tmp_path / "run")])
    original = SegmentationTask.training_step

    def press_ctrl_c(task: SegmentationTask, batch: Any, batch_idx: int) -> torch.Tensor:
        if task.model.config.stride == stride and task.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(task, batch, batch_idx)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", press_ctrl_c)
        with pytest.raises(Interrupted):
            train(recipe)
    assert signal.getsignal(signal.SIGINT) == handler
    assert not (tmp_path / "run/best.safetensors").exists()
    torch.manual_seed(99)  # the state of the process must not matter
    resume(tmp_path / "run")
    assert_same_weights(reference, tmp_path / "run")
    for stage in ("fcn32s", "fcn16s"):
        assert (reference / stage / "history.csv").read_text() == (tmp_path / "run" / stage / "history.csv").read_text()


def test_killed_between_checkpoints_resumes_to_bit_identical_weights(
    uninterrupted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_file, reference = uninterrupted
    recipe = load_recipe(recipe_file, ["--trainer.run_dir", str(tmp_path / "run")])
    original = SegmentationTask.training_step

    def crash(task: SegmentationTask, batch: Any, batch_idx: int) -> torch.Tensor:
        if task.model.config.stride == 16 and task.global_step == 4:
            raise RuntimeError("power cut")
        return original(task, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "training_step", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train(recipe)
    resume(tmp_path / "run")
    assert_same_weights(reference, tmp_path / "run")


def test_different_seed_gives_different_weights(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    """The comparisons above can fail."""
    recipe_file, reference = uninterrupted
    train(load_recipe(recipe_file, ["--trainer.run_dir", str(tmp_path / "run"), "--trainer.seed", "4"]))
    expected, found = final_state(reference), final_state(tmp_path / "run")
    assert not torch.equal(expected["model.head.score_fr.weight"], found["model.head.score_fr.weight"])


def test_damaged_checkpoint_is_named(uninterrupted: tuple[Path, Path], recipe: Recipe) -> None:
    run = Path(recipe.trainer.run_dir)
    (run / "fcn32s").mkdir(parents=True)
    save_recipe(recipe, run / "recipe.yaml")
    (run / "fcn32s/last.ckpt").write_bytes(b"junk")
    with pytest.raises(ConfigError, match=r"last\.ckpt: damaged checkpoint"):
        resume(run)


def test_learning_happens(recipe_file: Path, shapes: Path) -> None:
    """A few seconds of overfitting: shapes of unseen images are found."""
    overrides = ["--stages.stride=[8]", "--stages.epochs=[40]", "--stages.lr=[0.005]", "--trainer.validate_every=20",
                 "--model.dropout=0", "--data.augment.scale=[1,1]"]  # fmt: skip
    weights = train(load_recipe(recipe_file, overrides))
    predictor = Predictor(weights)
    assert predictor.evaluate(folder(shapes, "train"), progress=False).mean_iu > 0.85
    assert predictor.evaluate(folder(shapes, "test"), progress=False).mean_iu > 0.6


def test_heavy_recipe_learns(recipe_file: Path) -> None:
    """Batch 1, momentum 0.99, sum of the pixels' losses: rates as small as the sum is large."""
    overrides = ["--optimizer.name=sgd", "--optimizer.momentum=0.99", "--loss.normalize=false", "--data.batch_size=1",
                 "--stages.stride=[32]", "--stages.epochs=[6]", "--stages.lr=[1e-7]"]  # fmt: skip
    recipe = load_recipe(recipe_file, [*overrides, "--optimizer.schedule=constant", "--optimizer.weight_decay=5e-4"])
    train(recipe)
    with (Path(recipe.trainer.run_dir) / "fcn32s/history.csv").open() as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert losses[0] > 1000  # ln 3 x 3072 pixels at the start
    assert losses[-1] < 0.8 * losses[0]


def test_optimizer_groups_follow_the_official_solver(recipe: Recipe, model: FCN) -> None:
    heavy = dataclasses.replace(recipe, optimizer=dataclasses.replace(recipe.optimizer, name="sgd", momentum=0.99))
    task = SegmentationTask(model, Loss(LossConfig()), heavy.optimizer, lr=0.5, steps=10, seed=0)
    optimizer = task.configure_optimizers()["optimizer"]
    assert isinstance(optimizer, torch.optim.SGD)
    owners = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    assert len(owners) == sum(1 for _ in model.parameters())
    for name, parameter in model.named_parameters():
        group = owners[id(parameter)]
        assert group["momentum"] == 0.99
        assert group["initial_lr"] == (1.0 if name.endswith("bias") else 0.5), name
        assert group["weight_decay"] == (0.01 if parameter.dim() > 1 else 0), name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--data.bananas", "3"], "unrecognized arguments: --data.bananas"),
        (["--data.batch_size", "many"], "data.batch_size.*int.*many"),
        (["--data.batch_size", "0"], "data.batch_size must be at least 1, got 0"),
        (["--data.kind", "imagenet"], "data.kind.*camvid"),
        (["--loss.sampling", "0"], "loss.sampling must be a probability above 0"),
        (["--trainer.average", "1"], "trainer.average must be at least 0 and below 1"),
        (["--trainer.patience", "0"], "trainer.patience must be at least 1"),
        (["--optimizer.milestones", "[1.5]"], "optimizer.milestones must lie between 0 and 1"),
        (["--stages.epochs", "[1]"], "one number for each stage"),
        (["--stages.stride", "[32, 64]"], "stages.stride must hold 32, 16, 8 or 4"),
        (["--data.augment.scale", "[2, 1]"], "augment.scale must be two factors"),
    ],
)
def test_wrong_overrides_are_explained(recipe_file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe_file, overrides)


def test_wrong_recipes_are_explained(recipe_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(recipe_file.read_text())
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump({**content, "optimiser": {"name": "sgd"}}))
    with pytest.raises(ConfigError, match=r"bad\.yaml: .*optimiser"):
        load_recipe(bad)
    bad.write_text("data: [unclosed")
    with pytest.raises(ConfigError, match=r"bad\.yaml: .*pars"):
        load_recipe(bad)
    with pytest.raises(ConfigError, match=r"none\.yaml: recipe not found"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"data\.root is missing"):
        load_data_config(["--data.kind", "camvid"]).dataset("train")


def test_every_shipped_recipe_loads() -> None:
    files = sorted((Path(__file__).parents[2] / "fcn/recipes/library").glob("*.yaml"))
    assert len(files) >= 3
    for path in (*files, DEMO_RECIPE):
        recipe = load_recipe(path)
        assert recipe.trainer.run_dir == f"runs/{path.stem}"
        assert recipe.model.backbone in BACKBONES
        assert recipe.data.kind in (*KINDS, "mri")
