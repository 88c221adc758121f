"""Networks of others as trunks: taps by stride, geometry from traced layers, and what cannot be traced."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcn.data.preprocessing import IMAGENET
from fcn.inference.predictor import inference_trunk
from fcn.networks.backbones import register_trunk, traced
from fcn.networks.heads import Head, Stream
from fcn.networks.models import ModelConfig, build_model
from fcn.networks.summary import describe
from fcn.weights import load_pretrained_backbone, load_weights, prepared_for, save_weights
from fcn_kernels import CoordMap


class Residual(nn.Module):
    """As in ResNets: a sum, in place, of a strided branch and a strided 1x1 projection."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.project = nn.Conv2d(channels, out, 1, stride) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        y += self.project(x)
        out: Tensor = self.relu(y)
        return out


class Small(nn.Module):
    """A classifier: its pooling rounds down, its average over the map and its scores are not for a trunk.

    Channels are multiples of 8: of others, the gradient of a 1x1 filter with a stride is written past its end by
    PyTorch 2.13 on CPUs with AVX2 alone.
    """

    def __init__(self, stages: int = 3) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(3, 2, 1)
        self.stages = nn.Sequential(*(Residual(8 + 8 * n, 16 + 8 * n, 2) for n in range(stages)))
        self.average, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8 + 8 * stages, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.average(self.stages(self.pool(self.stem(x))))
        out: Tensor = self.fc(torch.flatten(x, 1))
        return out


class Patches(nn.Module):
    """Convolutions without overlap, whose cells are centered on their own pixels; then a gate that sees a whole map."""

    def __init__(self, gate: bool) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 4, 8, 8), nn.Conv2d(4, 6, 2, 2), nn.Conv2d(6, 8, 2, 2)])
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.down:
            x = torch.nn.functional.relu(layer(x))
            if self.gate:
                x = x * torch.sigmoid(x.mean((2, 3), keepdim=True))
        return x


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], nn.Module]], None]:
    monkeypatch.setattr(traced, "_registered", {})
    return register_trunk


def test_taps_and_positions_follow_from_the_layers(register: Callable[..., None]) -> None:
    register("mine", Small)
    torch.manual_seed(0)
    model = build_model(ModelConfig("mine", 4, 5)).eval()
    positions = [(int(s.position.scale), s.position.shift, s.channels) for s in model.head.streams]
    # Half filters at both ends: every cell is centered on the first of its pixels.
    assert positions == [(32, 0, 32), (16, 0, 24), (8, 0, 16), (4, 0, 8)]
    assert [s.score for s in model.head.streams] == ["score_fr", "score_16", "score_8", "score_4"]
    assert model.smallest_image == 1
    assert sum(row.parameters for row in describe(model)) == sum(p.numel() for p in model.parameters())
    rows = {row.layer: row for row in describe(model)}
    assert rows["stem"].receptive_field == 7
    # The ends of stages, not the branches of the blocks that follow.
    assert model.backbone.taps == ("stages_2_relu_1", "stages_1_relu_1", "stages_0_relu_1", "pool")
    assert rows["stages_0_conv1"].parameters == 3 * 3 * 8 * 16 + 2 * 16  # its normalization counts too


@pytest.mark.parametrize("size", [(1, 1), (33, 64), (47, 90), (256, 100)])
def test_scores_are_those_of_the_networks_own_maps(register: Callable[..., None], size: tuple[int, int]) -> None:
    nets: list[Small] = []

    def build() -> Small:
        nets.append(Small())
        return nets[-1]

    register("mine", build)
    torch.manual_seed(0)
    model = build_model(ModelConfig("mine", 8, 5)).eval()
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)
    net = Small().eval()
    trained = {name.removeprefix("net."): t for name, t in model.backbone.state_dict().items()}
    assert not net.load_state_dict(trained, strict=False).unexpected_keys
    images = torch.randn(2, 3, *size)
    x = net.pool(net.stem(images))
    maps = {}
    for stride, stage in zip((8, 16, 32), net.stages, strict=True):
        maps[str(stride)] = x = stage(x)
    names = {32: "score_fr", 16: "score_16", 8: "score_8"}
    streams = [
        Stream(str(s), name, maps[str(s)].shape[1], CoordMap(Fraction(s), Fraction(0))) for s, name in names.items()
    ]
    head = Head(streams, 8, 5, "clamp")
    head.load_state_dict(model.head.state_dict(), strict=False)
    for mine, theirs in zip(streams, model.head.streams, strict=True):
        head.score(mine).load_state_dict(model.head.score(theirs).state_dict())
    torch.testing.assert_close(model(images), head(maps, size).logits())
    with torch.no_grad():
        torch.testing.assert_close(model.scores(images, inference_trunk(model)).logits(), model(images))


def test_it_trains_and_is_saved(register: Callable[..., None], tmp_path: Path) -> None:
    register("mine", Small)
    model = build_model(ModelConfig("mine", 8, 2)).train()
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)
    images = torch.randn(2, 3, 64, 64)
    model.scores(images).loss(torch.randint(0, 2, (2, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for n, p in model.named_parameters() if "conv" in n)
    assert model.backbone.state_dict()["net.stages.0.bn1.num_batches_tracked"] == 1
    file = tmp_path / "a.safetensors"
    save_weights(file, model, classes=["a", "b"], palette=[(0, 0, 0)] * 2, preprocessing=IMAGENET)
    loaded = load_weights(file)
    assert torch.equal(loaded.model(images), model.eval()(images))
    traced._registered.clear()
    with pytest.raises(
        ValueError, match=r"damaged header: .*backbone must be one of .* or a registered name, got 'mine'"
    ):
        load_weights(file)


@pytest.mark.parametrize("gate", [False, True])
def test_unknown_geometry_is_said_and_taken_as_interpolation(register: Callable[..., None], gate: bool) -> None:
    register("mine", lambda: Patches(gate))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = build_model(ModelConfig("mine", 8, 3)).eval()
    said = [str(warning.message) for warning in caught if "geometry" in str(warning.message)]
    assert said == (["mine: the geometry of mean is unknown; maps are sampled as by F.interpolate"] if gate else [])
    # Without overlap, cells lie where interpolation has them: both ways agree.
    assert [(int(s.position.scale), s.position.shift) for s in model.head.streams] == [
        (32, Fraction(31, 2)), (16, Fraction(15, 2)), (8, Fraction(7, 2))
    ]  # fmt: skip
    # A last row of pixels without a cell of their own continues the one before.
    assert model.smallest_image == 32
    nn.init.normal_(model.head.get_parameter("score_8.weight"))
    scores = model(torch.randn(1, 3, 64, 103))
    assert scores.shape == (1, 3, 64, 103)
    torch.testing.assert_close(scores[..., 100], scores[..., 102])
    with pytest.raises(ValueError, match=r"mine: its maps leave pixels .* last_upsampling must be fixed"):
        build_model(ModelConfig("mine", 8, 3, last_upsampling="diagonal"))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Small(2), r"^mine: it has no map of stride 32; there are strides 2, 4, 8, 16$"),
        (Undecided, r"^mine: Undecided has no fixed graph of layers: "),
        (lambda: nn.Linear(3, 4), r"^mine: it does not take images \[1, 3, 256, 256\]: "),
    ],
)
def test_networks_that_are_no_trunk(register: Callable[..., None], build: Any, message: str) -> None:
    register("mine", build)
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig("mine", 8, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad": "official"}, "pad must be 'same' for mine, a network traced as it is, got 'official'"),
        ({"truncate": "stem"}, "truncate must be '' for mine"),
        ({"in_channels": 4}, "in_channels must be 3 for mine"),
        (
            {"backbone": "nothing"},
            "backbone must be one of .*torchvision:NAME, timm:NAME or a registered name, got 'nothing'",
        ),
    ],
)
def test_wrong_options(register: Callable[..., None], options: dict[str, Any], message: str) -> None:
    register("mine", Small)
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{"backbone": "mine", **options})


def test_wrong_names(register: Callable[..., None]) -> None:
    with pytest.raises(ValueError, match=r"must be an identifier, such as my_net, got 'a:b'"):
        register("a:b", Small)
    register("mine", Small)
    with pytest.raises(ValueError, match="mine: a registered network has no library to take weights from"):
        load_pretrained_backbone(build_model(ModelConfig("mine")), "mine")


@pytest.mark.parametrize(("library", "module"), [("torchvision", "torchvision.models"), ("timm", "timm")])
def test_libraries(monkeypatch: pytest.MonkeyPatch, library: str, module: str) -> None:
    """With a stand-in for the library, and without it."""
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=f"^{library}:small: {library} is not installed; pip install {library}$"):
        build_model(ModelConfig(f"{library}:small"))

    def make(name: str, weights: str | None = None, pretrained: bool = False) -> nn.Module:
        if name != "small":
            raise ValueError(f"Unknown model {name}")
        net = Small()
        if weights == "DEFAULT" or pretrained:
            nn.init.constant_(net.stem.weight, 0.25)
        return net

    stand_in = types.ModuleType(module)
    stand_in.get_model = stand_in.create_model = make  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, library, stand_in)
    monkeypatch.setitem(sys.modules, module, stand_in)
    model = build_model(ModelConfig(f"{library}:small"))
    assert not (model.backbone.state_dict()["net.stem.weight"] == 0.25).all()
    load_pretrained_backbone(model, f"{library}:small")
    assert (model.backbone.state_dict()["net.stem.weight"] == 0.25).all()
    assert prepared_for(f"{library}:small") == IMAGENET
    monkeypatch.setattr(Small, "pretrained_cfg", {"mean": (0.5, 0.5, 0.5)}, raising=False)  # as timm's networks have
    with pytest.warns(UserWarning, match="trained on images prepared by .*0.5, 0.5, 0.5"):
        load_pretrained_backbone(model, f"{library}:small", IMAGENET)
    with pytest.raises(ValueError, match=f"^{library}:large: {library} makes no such network: Unknown model large"):
        build_model(ModelConfig(f"{library}:large"))
