"""Classifiers of other programs become FCN-32s, and trunks to start training from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcn.data import ArrayDataset
from fcn.data.nyud import PUBLISHED as NYUD_PUBLISHED
from fcn.data.preprocessing import CAFFE_VGG, IMAGENET, Preprocessing
from fcn.errors import ConfigError
from fcn.networks.backbones import BACKBONES
from fcn.networks.models import ModelConfig, build_model
from fcn.recipes.config import DataConfig, NetworkConfig
from fcn.training.start import preprocessing_of
from fcn.weights import convert, load_pretrained_backbone, prepared_for
from tests.fcn.foreign import write_caffemodel
from tests.fcn.networks import State, published_state

pytestmark = pytest.mark.usefixtures("narrow_backbones")


def plain_torchvision_googlenet(state: State, x: Tensor) -> Tensor:
    def conv(name: str, x: Tensor, **options: Any) -> Tensor:
        x = F.conv2d(x, state[f"{name}.conv.weight"], **options)
        bn = [state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *bn, eps=1e-3))

    x = F.max_pool2d(conv("conv1", x, stride=2, padding=3), 3, 2, ceil_mode=True)
    x = F.max_pool2d(conv("conv3", conv("conv2", x), padding=1), 3, 2, ceil_mode=True)
    for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        name = f"inception{module}"
        x = torch.cat([
            conv(f"{name}.branch1", x),
            conv(f"{name}.branch2.1", conv(f"{name}.branch2.0", x), padding=1),
            conv(f"{name}.branch3.1", conv(f"{name}.branch3.0", x), padding=1),
            conv(f"{name}.branch4.1", F.max_pool2d(x, 3, 1, 1)),
        ], 1)  # fmt: skip
        if module in ("3b", "4e"):
            x = F.max_pool2d(x, 3 if module == "3b" else 2, 2, ceil_mode=True)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def torchvision_state(backbone: str) -> tuple[State, Callable[[Tensor], Tensor]]:
    """Random tensors with torchvision's names, and its classifier with them."""
    torch.manual_seed(3)
    if backbone == "googlenet_torchvision":
        state: State = {}
        channels_of = input_channels(backbone)
        for layer in BACKBONES[backbone].layers:
            branch = {"1x1": "branch1", "3x3_reduce": "branch2.0", "3x3": "branch2.1", "5x5_reduce": "branch3.0",
                      "5x5": "branch3.1", "pool_proj": "branch4.1"}  # fmt: skip
            module, _, part = layer.name.partition("/")
            stem = {"conv1/7x7_s2": "conv1", "conv2/3x3_reduce": "conv2", "conv2/3x3": "conv3"}
            if layer.kind == "conv":
                name = stem.get(layer.name) or f"{module.replace('_', '')}.{branch[part]}"
                shape = (layer.channels, channels_of[layer.name], layer.kernel_size, layer.kernel_size)
                state[f"{name}.conv.weight"] = torch.randn(shape) / (shape[1] * layer.kernel_size**2) ** 0.5
                state[f"{name}.bn.weight"] = torch.rand(layer.channels) + 0.5
                state[f"{name}.bn.bias"] = torch.rand(layer.channels)
                state[f"{name}.bn.running_mean"] = torch.randn(layer.channels) * 0.1
                state[f"{name}.bn.running_var"] = torch.rand(layer.channels) + 0.01
                state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
        state["fc.weight"] = torch.randn(64, BACKBONES[backbone].layers[-2].channels)
        state["fc.bias"] = torch.randn(64)
        state["aux1.fc1.weight"] = torch.randn(3, 3)
        return state, lambda x: plain_torchvision_googlenet(state, x)
    nn = torch.nn
    modules: list[nn.Module] = []
    channels = 3
    for layer in BACKBONES[backbone].layers:
        if layer.kind == "conv":
            modules += [nn.Conv2d(channels, layer.channels, layer.kernel_size, layer.stride, layer.padding), nn.ReLU()]
        elif layer.kind == "pool":
            modules.append(nn.MaxPool2d(layer.kernel_size, layer.stride))
        channels = layer.channels if layer.kind != "linear" else channels
    widths = [layer.channels for layer in BACKBONES[backbone].layers[-3:]]
    first, second, third = (
        nn.Linear(a, b) for a, b in zip((channels * (36 if "alex" in backbone else 49), *widths), widths, strict=False)
    )
    if "alex" in backbone:
        last = nn.Sequential(nn.Dropout(), first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), third)
    else:
        last = nn.Sequential(first, nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout(), third)
    net = nn.Sequential()
    net.add_module("features", nn.Sequential(*modules))
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", last)
    return net.eval().state_dict(), net


def input_channels(backbone: str) -> dict[str, int]:
    """Input channels of each convolution."""
    return {name: module.in_channels for name, module in BACKBONES[backbone].classifier().named_modules()
            if isinstance(module, torch.nn.Conv2d)}  # fmt: skip


@pytest.mark.parametrize("backbone", ["vgg16", "vgg19", "alexnet_torchvision", "googlenet_torchvision"])
def test_torchvision_classifiers(tmp_path: Path, backbone: str) -> None:
    """FCN-32s of the classifier's own classes: on the classifier's image its one score is the classifier's."""
    state, net = torchvision_state(backbone)
    torch.save(state, tmp_path / "a.pth")
    # GoogLeNet's own padding; else the first layer's of the classifier, for a score in one place.
    weights = convert(tmp_path / "a.pth", pad="official")
    config = weights.model.config
    assert (config.backbone, config.stride) == (backbone, 32)
    images = torch.randn(1, 3, 224, 224)
    trunk = weights.model.trunks[""]
    classifier = BACKBONES[backbone].classifier().eval()
    own = dict(trunk.state_dict())
    score = weights.model.head.score(weights.model.head.streams[0])
    last = BACKBONES[backbone].layers[-1].name
    own |= {f"{last}.weight": score.weight.detach(), f"{last}.bias": score.bias.detach()}
    classifier.load_state_dict({name: own[name].reshape(t.shape) for name, t in classifier.state_dict().items()})
    torch.testing.assert_close(classifier(images)[last], net(images), rtol=1e-3, atol=1e-3)
    assert weights.preprocessing.std == ((0.5,) * 3 if "googlenet" in backbone else IMAGENET.std)
    # The same trunk for training, by another way.
    model = build_model(ModelConfig(backbone, 16, 5))
    load_pretrained_backbone(model, tmp_path / "a.pth")
    torch.testing.assert_close(model.backbone.state_dict(), trunk.state_dict(), rtol=0, atol=0)


def test_torchvision_geometry_of_googlenet() -> None:
    model = build_model(ModelConfig("googlenet_torchvision", 32, 3, "official"))
    assert float(model.head.streams[0].position.shift) == 22
    assert model.head.upsample("upscore").geometry.crop == 9


@pytest.mark.parametrize("backbone", ["vgg16", "alexnet", "googlenet"])
@pytest.mark.parametrize("v1", [False, True])
def test_caffe_classifiers(tmp_path: Path, backbone: str, v1: bool) -> None:
    torch.manual_seed(0)
    classifier = BACKBONES[backbone].classifier().eval()
    auxiliary = {"loss1/conv.weight": torch.randn(2, 3, 1, 1)} if backbone == "googlenet" else {}
    write_caffemodel(tmp_path / "a.caffemodel", {**classifier.state_dict(), **auxiliary}, v1=v1)
    weights = convert(tmp_path / "a.caffemodel", pad="official")
    assert weights.preprocessing == CAFFE_VGG
    assert weights.model.config.backbone == backbone
    found = weights.model.backbone.state_dict()
    for name, tensor in classifier.state_dict().items():
        if name in found:
            assert torch.equal(found[name].reshape(tensor.shape), tensor)
    last = classifier.layers[-1].name
    score = weights.model.head.get_parameter("score_fr.weight")
    assert torch.equal(score.flatten(1), classifier.get_parameter(f"{last}.weight"))
    model = build_model(ModelConfig(backbone, 8, 5, "official"))
    load_pretrained_backbone(model, tmp_path / "a.caffemodel")
    torch.testing.assert_close(model.backbone.state_dict(), found, rtol=0, atol=0)


def test_early_fusion_starts_from_the_mean_of_the_colors(tmp_path: Path) -> None:
    state = published_state("vgg16", 32)
    write_caffemodel(tmp_path / "a.caffemodel", state)
    model = build_model(ModelConfig("vgg16", 32, 5, in_channels=4))
    load_pretrained_backbone(model, tmp_path / "a.caffemodel")
    weight = model.backbone.get_parameter("conv1_1.weight")
    assert torch.equal(weight[:, :3], state["conv1_1.weight"])
    torch.testing.assert_close(weight[:, 3], state["conv1_1.weight"].mean(1))
    # Late fusion: both trunks start from the same weights.
    model = build_model(ModelConfig("vgg16", 32, 5, modalities=("color", "hha")))
    load_pretrained_backbone(model, tmp_path / "a.caffemodel")
    assert all(torch.equal(t.get_parameter("fc6.weight"), state["fc6.weight"]) for t in model.trunks.values())


def test_torchvisions_other_networks_say_why_they_do_not_fit(tmp_path: Path) -> None:
    for backbone, why in (("googlenet", "batch normalization"), ("alexnet", "no groups")):
        torch.save(torchvision_state(f"{backbone}_torchvision")[0], tmp_path / "a.pth")
        with pytest.raises(ValueError, match=f"weights of {backbone}_torchvision, the network is {backbone}: .*{why}"):
            load_pretrained_backbone(build_model(ModelConfig(backbone, 32)), tmp_path / "a.pth")
    state, _ = torchvision_state("googlenet_torchvision")
    del state["conv2.bn.running_var"]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"missing: conv2\.bn\.running_var"):
        convert(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("here", "warned"),
    [
        (CAFFE_VGG, False),
        (NYUD_PUBLISHED["color"], False),  # the authors' own networks: other means, the same order and scale
        (NYUD_PUBLISHED["color_depth"], False),
        (IMAGENET, True),
        (replace(CAFFE_VGG, channel_order="rgb"), True),
    ],
)
def test_images_prepared_otherwise_are_a_warning(tmp_path: Path, here: Preprocessing, warned: bool) -> None:
    path = tmp_path / "a.caffemodel"
    write_caffemodel(path, published_state("vgg16", 32))
    model = build_model(ModelConfig("vgg16", 32, 5, in_channels=here.channels))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_pretrained_backbone(model, path, here)
    assert [("trained on images prepared by" in str(warning.message)) for warning in caught] == [True] * warned
    assert prepared_for(path) == CAFFE_VGG


def test_a_recipe_may_take_the_preprocessing_of_its_weights(tmp_path: Path) -> None:
    torch.save(torchvision_state("googlenet_torchvision")[0], tmp_path / "a.pth")
    data = DataConfig("folder", preprocessing="weights")
    nothing = ArrayDataset([], ["a", "b"], [(0, 0, 0)] * 2)
    found = preprocessing_of(data, NetworkConfig(pretrained=str(tmp_path / "a.pth")), nothing)
    assert found == Preprocessing((0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ConfigError, match=r"data\.preprocessing: weights is that of the file model\.pretrained"):
        preprocessing_of(data, NetworkConfig(), nothing)
