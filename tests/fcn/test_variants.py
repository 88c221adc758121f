"""Truncated networks, two modalities, two tasks, and what makes no network."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fcn.cli import main
from fcn.networks.backbones import BACKBONES
from fcn.networks.models import ModelConfig, build_model, late_fusion
from fcn.networks.summary import describe
from tests.fcn import networks
from tests.fcn.networks import narrowed, random_model


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, divisor in (("alexnet", 32), ("vgg16", 64), ("googlenet", 16)):
        monkeypatch.setitem(BACKBONES, f"narrow_{name}", narrowed(BACKBONES[name], divisor))


@pytest.mark.parametrize(
    ("truncate", "stride", "kernel_size", "offset"),
    [("pool5", 32, 64, 115), ("pool4", 16, 32, 107), ("pool3", 8, 16, 103)],
)
def test_truncated_networks(truncate: str, stride: int, kernel_size: int, offset: int) -> None:
    """FCN-pool5, -pool4, -pool3 (TPAMI 2016, table 3), with the crops that padding by 100 gives."""
    model = random_model("narrow_vgg16", stride=stride, pad="official", truncate=truncate).double()
    p = networks.published_parameters(model)
    assert not any(name.startswith("fc") for name in p)
    images = torch.randn(1, 3, 45, 70, dtype=torch.float64)
    whole = networks.published_parameters(random_model("narrow_vgg16", stride=32).double())
    maps = networks.vgg({**whole, **p}, images, networks.VGG_DEPTHS["vgg16"], 100)
    x = F.conv2d(maps[truncate], p[f"score_{truncate}.weight"], p[f"score_{truncate}.bias"])
    x = F.conv_transpose2d(x, networks.bilinear(kernel_size, 3, x.dtype), stride=stride)
    torch.testing.assert_close(model(images), networks.crop(x, offset, 45, 70), rtol=1e-9, atol=1e-11)


def test_truncated_network_with_a_skip() -> None:
    model = build_model(ModelConfig("narrow_vgg16", 8, 3, truncate="pool4"))
    assert [stream.score for stream in model.head.streams] == ["score_pool4", "score_pool3"]
    assert (model.head.fusions, model.head.last) == (["upscore2"], "upscore8")
    assert model(torch.randn(1, 3, 33, 50)).shape == (1, 3, 33, 50)


# --- Two modalities. ---


@pytest.mark.parametrize(("backbone", "stride"), [("narrow_vgg16", 32), ("narrow_vgg16", 8), ("narrow_alexnet", 16)])
def test_late_fusion_is_the_mean_of_the_scores(backbone: str, stride: int) -> None:
    color = random_model(backbone, 1, stride=stride, pad="official").double()
    depth = random_model(backbone, 2, stride=stride, pad="official").double()
    fused = late_fusion({"color": color, "hha": depth})
    assert fused.config.modalities == ("color", "hha")
    images = torch.randn(2, 6, 40, 61, dtype=torch.float64)
    expected = (color(images[:, :3]) + depth(images[:, 3:])) / 2
    torch.testing.assert_close(fused(images), expected, rtol=1e-9, atol=1e-11)
    with pytest.raises(ValueError, match=r"\[N, 6, H, W\]"):
        fused.scores(images[:, :3])
    names = {row.layer for row in describe(fused)}
    assert {"color.fc7", "hha.fc7", "score_fr", fused.head.last} <= names
    assert sum(row.parameters for row in describe(fused)) == sum(p.numel() for p in fused.parameters())


def test_late_fusion_wants_equal_networks_of_fixed_upsampling() -> None:
    one = random_model("narrow_vgg16", stride=16)
    with pytest.raises(ValueError, match="same configuration"):
        late_fusion({"a": one, "b": random_model("narrow_vgg16", stride=8)})
    with pytest.raises(ValueError, match="must be fixed"):
        late_fusion({name: random_model("narrow_vgg16", stride=16, upsampling="diagonal") for name in "ab"})


# --- Two tasks. ---


@pytest.mark.parametrize("upsampling", ["fixed", "diagonal"])
def test_two_tasks_are_two_networks_with_one_trunk(upsampling: str) -> None:
    tasks = (("semantic", 4), ("geometric", 3))
    model = random_model("narrow_vgg16", stride=16, classes=7, tasks=tasks, upsampling=upsampling).double()
    images, scores = torch.randn(2, 3, 50, 40, dtype=torch.float64), {}
    target = {name: torch.randint(0, classes, (2, 50, 40)) for name, classes in tasks}
    for name, classes in tasks:
        alone = build_model(ModelConfig("narrow_vgg16", 16, classes, dropout=0.0, upsampling=upsampling)).double()
        start = 0 if name == "semantic" else 4
        state = {
            key: tensor[start : start + classes] if key.startswith("head") else tensor
            for key, tensor in model.state_dict().items()
        }
        alone.load_state_dict(state)
        scores[name] = alone.scores(images)
    together = model.task_scores(images)
    assert list(together) == ["semantic", "geometric"]
    for name, expected in scores.items():
        torch.testing.assert_close(together[name].logits(), expected.logits(), rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(together[name].loss(target[name]), expected.loss(target[name]))
    sum(together[name].loss(target[name]) for name in target).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_scores_of_tasks_are_not_confused() -> None:
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="each of the tasks a, b: see task_scores"):
        build_model(ModelConfig("narrow_vgg16", classes=5, tasks=(("a", 2), ("b", 3))))(images)
    model = build_model(ModelConfig("narrow_vgg16"))
    (only,) = model.task_scores(images).values()
    assert torch.equal(only.coarse, model.scores(images).coarse)


# --- At once, four channels, sizes. ---


def test_at_once_scales_the_skips() -> None:
    staged = random_model("narrow_vgg16", stride=8)
    at_once = build_model(ModelConfig("narrow_vgg16", 8, 3, dropout=0.0, at_once=True))
    assert at_once.init_from(staged) == []
    with torch.no_grad():
        staged.head.get_parameter("score_pool4.weight").mul_(0.01)
        staged.head.get_parameter("score_pool3.weight").mul_(0.0001)
    images = torch.randn(1, 3, 40, 50)
    torch.testing.assert_close(at_once(images), staged(images), rtol=1e-4, atol=1e-4)


def test_googlenet_with_the_classifiers_padding_needs_31_pixels() -> None:
    model = build_model(ModelConfig("narrow_googlenet", 8, 3, "official"))
    assert model(torch.zeros(1, 3, 31, 40)).shape == (1, 3, 31, 40)
    with pytest.raises(ValueError, match=r"at least 31 x 31 pixels, got shape \(1, 3, 30, 40\)"):
        model(torch.zeros(1, 3, 30, 40))
    assert build_model(ModelConfig("narrow_googlenet", 8, 3))(torch.zeros(1, 3, 1, 2)).shape == (1, 3, 1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsampling": "learned"}, "upsampling must be one of .*'diagonal'.* got 'learned'"),
        ({"at_once": True, "stride": 32}, "stride must be 16 or 8, got 32"),
        ({"truncate": "pool9"}, "narrow_vgg16 has no layer 'pool9'; it has conv1_1"),
        ({"truncate": "pool3", "stride": 16}, r"pool3 has stride 8; with stride 16 it must be one of \(32, 16\)"),
        ({"truncate": "pool2"}, r"pool2 has stride 4; with stride 8 it must be one of \(32, 16, 8\)"),
        ({"modalities": ("color", "color")}, "different names"),
        ({"modalities": ("a.b",)}, "different names"),
        ({"tasks": (("a", 20), ("b", 2))}, "sum to 21 classes"),
        ({"tasks": (("a", 20), ("a", 1))}, "sum to 21 classes"),
        ({"tasks": (("a", 10), ("b", 11)), "last_upsampling": "dense"}, "mix the tasks"),
        ({"tasks": (("../a", 10), ("b", 11))}, "names of tasks must be identifiers"),
    ],
)
def test_what_makes_no_network(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig(**{"backbone": "narrow_vgg16", **options}))


# --- The table. ---


def test_info_on_each_network(capsys: pytest.CaptureFixture[str]) -> None:
    published = {
        "alexnet": ("56,961,695", 8, 355),
        "vgg16": ("134,362,751", 16, 404),
        "googlenet": ("6,022,671", 22, 715),
    }
    assert main(["info", *published, "--pad", "official"]) == 0
    for (name, (parameters, convolutions, field)), printed in zip(
        published.items(), re.split("FCN-8s, ", capsys.readouterr().out)[1:], strict=True
    ):
        assert printed.startswith(f"{name}, pad official")
        assert f"{parameters} parameters; {convolutions} convolutions" in printed
        assert f"a score sees {field} pixels and lies 32 from the next" in printed
    assert main(["info", "vgg16", "--stride", "5"]) == 2
    assert "stride must be one of" in capsys.readouterr().err
    assert main(["info", "unknown.safetensors", "--stride", "8"]) == 2
    assert "--stride is for backbones (alexnet" in capsys.readouterr().err


def test_table_of_vgg16(capsys: pytest.CaptureFixture[str]) -> None:
    """The published crops, kernels and places."""
    assert main(["info", "vgg16", "--pad", "official", "--classes", "60"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["conv1_1"] == ["conv", "3", "p100", "64", "1,792", "3", "1", "-99"]
    assert rows["fc6"] == ["conv", "7", "4,096", "102,764,544", "404", "32", "12.5"]
    assert rows["score_pool4"][:4] == ["conv", "1", "crop", "5"]
    assert rows["score_pool3"][:5] == ["conv", "1", "crop", "9", "60"]
    assert rows["upscore8"] == ["deconv", "16", "s8", "crop", "31", "60", "0", "460", "1", "0"]
