"""Trunks of a recipe: truncated ones, files that have convolutions alone, rates of the head, warm-up."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from fcn.errors import ConfigError
from fcn.networks.models import ModelConfig, build_model, parameter_groups
from fcn.recipes.config import OptimizerConfig, load_recipe
from fcn.training.task import SegmentationTask
from fcn.weights import load_pretrained_backbone
from tests.fcn.networks import published_state, random_model

RECIPES = Path(__file__).parents[2] / "fcn/recipes/library"


@pytest.mark.usefixtures("narrow_backbones")
def test_convolutions_alone_start_a_trunk(tmp_path: Path) -> None:
    state = published_state("vgg16", 32)
    path = tmp_path / "a.pth"
    torch.save({name: t for name, t in state.items() if name.startswith("conv")}, path)
    model = build_model(ModelConfig("vgg16", 8, 5))
    fresh = {name: t.clone() for name, t in model.backbone.state_dict().items()}
    with pytest.warns(UserWarning, match=r"a\.pth: it has no fc6 and fc7; they start anew"):
        load_pretrained_backbone(model, path)
    for name, tensor in model.backbone.state_dict().items():
        expected = state[name] if name.startswith("conv") else fresh[name]
        assert torch.equal(tensor, expected)
    # One of the two is no trunk.
    torch.save({name: t for name, t in state.items() if name.startswith(("conv", "fc6"))}, path)
    with pytest.raises(ValueError, match=r"missing: fc7\.weight, fc7\.bias$"):
        load_pretrained_backbone(model, path)


@pytest.mark.usefixtures("narrow_backbones")
@pytest.mark.parametrize("whole", [True, False])
def test_truncated_trunks_take_what_they_have(tmp_path: Path, whole: bool) -> None:
    state = published_state("vgg16", 32)
    path = tmp_path / "a.pth"
    torch.save({name: t for name, t in state.items() if whole or name.startswith("conv")}, path)
    model = build_model(ModelConfig("vgg16", 8, 5, truncate="pool5"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing starts anew
        load_pretrained_backbone(model, path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.backbone.state_dict().items())
    torch.save({**state, "conv9_9.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"unexpected: conv9_9\.weight$"):
        load_pretrained_backbone(model, path)


def test_rates_of_the_head() -> None:
    model = random_model("small_batchnorm", stride=8)
    groups = {group["name"]: group for group in parameter_groups(model, 0.1, 0.01, 2.0)}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "weights": (0.1, 0.01), "biases": (0.2, 0.0), "scales": (0.1, 0.0),
        "head weights": (0.2, 0.01), "head biases": (0.4, 0.0),
    }  # fmt: skip
    members = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(members) == sorted(map(id, model.parameters()))
    head = [id(p) for name, group in groups.items() if name.startswith("head") for p in group["params"]]
    assert sorted(head) == sorted(map(id, model.head.parameters()))


@pytest.mark.parametrize("schedule", ["constant", "poly", "step"])
def test_warm_up(schedule: str) -> None:
    def rates(warmup: int) -> list[float]:
        options = OptimizerConfig(schedule=schedule, warmup=warmup)  # type: ignore[arg-type]
        task = SegmentationTask(random_model("small", stride=32), None, options, lr=1.0, steps=20, seed=0)  # type: ignore[arg-type]
        return [task._rate(step) for step in range(20)]

    plain, warm = rates(0), rates(4)
    assert plain[0] == 1
    assert warm[:5] == pytest.approx([rate * (step + 1) / 5 for step, rate in enumerate(plain[:5])])
    assert warm[5:] == plain[5:]


def test_the_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / "camvid_fcn8s_lite0.yaml")
    assert (recipe.model.pretrained, recipe.data.preprocessing) == ("efficientnet_lite0", "efficientnet_lite")
    assert (recipe.optimizer.warmup, recipe.optimizer.head_rate) == (50, 2)
    assert load_recipe(RECIPES / "camvid_fcn8s_lite0.yaml", ["--model.truncate=block4/sum"]).model.truncate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optimizer.warmup=-1"], "optimizer.warmup must be 0 or more steps, got -1"),
        (["--optimizer.head_rate=0"], "optimizer.head_rate must be above 0 and finite, got 0.0"),
        (["--optimizer.head_rate=.inf"], "optimizer.head_rate must be above 0 and finite, got inf"),
    ],
)
def test_wrong_options(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(RECIPES / "camvid_fcn8s_lite0.yaml", options)


def test_an_unknown_layer_to_truncate_at() -> None:
    with pytest.raises(ValueError, match=r"truncate: efficientnet_lite0 has no layer 'pool5'; it has stem, "):
        build_model(ModelConfig("efficientnet_lite0", truncate="pool5"))
