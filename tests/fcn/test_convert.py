"""Files of other programs become the networks they are of: compared with plain PyTorch layers on the same tensors."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from fcn.backbones import BACKBONES
from fcn.cli import main
from fcn.models import ModelConfig, build_model
from fcn.preprocessing import CAFFE_VGG, IMAGENET
from fcn.weights import convert, load_pretrained_backbone, load_weights, sources
from fcn.weights.caffemodel import read_caffemodel
from tests.fcn import networks
from tests.fcn.foreign import layers_of, net_parameter, write_caffemodel, write_npz
from tests.fcn.networks import narrowed, random_model

DIVISORS = {
    "alexnet": 32, "vgg16": 64, "vgg19": 64, "googlenet": 16, "alexnet_torchvision": 32, "googlenet_torchvision": 16,
}  # fmt: skip
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, divisor in DIVISORS.items():
        monkeypatch.setitem(BACKBONES, name, narrowed(BACKBONES[name], divisor))


def published_state(backbone: str, stride: int, classes: int = 3, seed: int = 0) -> State:
    """The tensors of a published network, with its transposed convolutions from every class to every class."""
    model = random_model(backbone, seed, stride=stride, classes=classes, pad="official")
    state = {name: tensor.detach().clone() for name, tensor in networks.published_parameters(model).items()}
    kernels = networks.HEADS["vgg" if backbone.startswith("vgg") else backbone][stride][0]
    for name, kernel_size in zip((*model.head.fusions, model.head.last), kernels, strict=True):
        state[f"{name}.weight"] = networks.bilinear(kernel_size, classes, torch.float32)
    return state


def assert_same_network(
    path: Path, state: State, backbone: str, stride: int, scales: Any = (1.0, 1.0), **options: Any
) -> None:
    """Scores, loss and gradient of the image."""
    weights = convert(path, **options)
    assert (weights.model.config.backbone, weights.model.config.stride) == (backbone, stride)
    images = torch.randn(1, 3, 45, 77, requires_grad=True)
    target = torch.randint(0, 3, (1, 45, 77))
    logits = networks.official(backbone, state, images, stride, scales)
    scores = weights.model.scores(images)
    torch.testing.assert_close(scores.logits(), logits, rtol=1e-3, atol=1e-3)
    loss = F.cross_entropy(logits, target)
    torch.testing.assert_close(scores.loss(target), loss, rtol=1e-4, atol=1e-4)
    (expected,) = torch.autograd.grad(loss, [images])
    (actual,) = torch.autograd.grad(scores.loss(target), [images])
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))


# --- pytorch-fcn. ---


@pytest.mark.parametrize(
    ("name", "stride", "scales"),
    [("fcn32s", 32, (1, 1)), ("fcn16s", 16, (1, 1)), ("fcn8s", 8, (1, 1)), ("fcn8s-atonce", 8, (0.01, 0.0001))],
)
@pytest.mark.parametrize("layout", ["published", "checkpoint"])
def test_pytorch_fcn(tmp_path: Path, name: str, stride: int, scales: Any, layout: str) -> None:
    state = published_state("vgg16", stride)
    if layout == "published":
        path = tmp_path / f"my_{name}.pth"
        torch.save(state, path)
    else:
        path = tmp_path / "checkpoint.pth.tar"
        arch = {"fcn32s": "FCN32s", "fcn16s": "FCN16s", "fcn8s": "FCN8s", "fcn8s-atonce": "FCN8sAtOnce"}[name]
        checkpoint = {"epoch": 3, "iteration": 7, "arch": arch, "optim_state_dict": {"state": {}, "param_groups": []},
                      "model_state_dict": state, "best_mean_iu": np.float64(0.5)}  # fmt: skip
        torch.save(checkpoint, path)
    assert_same_network(path, state, "vgg16", stride, scales)
    config = convert(path).model.config
    assert (config.pad, config.classes, config.at_once) == ("official", 3, "atonce" in name)
    assert (config.upsampling, config.last_upsampling) == ("fixed", "fixed")
    assert convert(path).preprocessing == CAFFE_VGG


def test_checkpoints_written_before_numpy_2(tmp_path: Path) -> None:
    state = published_state("vgg16", 32)
    torch.save({"arch": "FCN32s", "model_state_dict": state, "best_mean_iu": np.float64(0.5)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            old.writestr(name, content.replace(b"numpy._core", b"numpy.core") if name.endswith("data.pkl") else content)
    assert (tmp_path / "old.pth").read_bytes().count(b"numpy.core.multiarray") == 1
    assert_same_network(tmp_path / "old.pth", state, "vgg16", 32)


def test_at_once_must_be_said_where_nothing_tells(tmp_path: Path) -> None:
    path, state = tmp_path / "weights.pth", published_state("vgg16", 8)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"weights\.pth: nothing in this file tells .* --no-at-once"):
        convert(path)
    assert_same_network(path, state, "vgg16", 8, at_once=False)
    assert_same_network(path, state, "vgg16", 8, (0.01, 0.0001), at_once=True)
    torch.save({"arch": "FCN8s", "model_state_dict": state}, path)
    with pytest.raises(ValueError, match="at_once is True, but this file is not of that kind"):
        convert(path, at_once=True)


def test_published_files_are_known_by_their_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "renamed.pth"
    torch.save(published_state("vgg16", 8), path)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "PUBLISHED", (sources.Published("fcn8s-atonce_from_caffe.pth", md5, at_once=True),))
    weights = convert(path)
    assert weights.model.config.at_once
    assert weights.extra["checksum"] == "that of the published fcn8s-atonce_from_caffe.pth"
    other = tmp_path / "fcn8s-atonce_from_caffe.pth"
    torch.save(published_state("vgg16", 8, seed=1), other)
    with pytest.raises(ValueError, match=f"that of the published file of this name {md5}"):
        convert(other)


def test_checksums_are_those_of_the_published_files() -> None:
    assert {known.name: known.md5[:4] for known in sources.PUBLISHED} == {
        "fcn32s_from_caffe.pth": "d3eb", "fcn16s_from_caffe.pth": "a2d4", "fcn8s_from_caffe.pth": "de93",
        "fcn8s-atonce_from_caffe.pth": "bfed", "vgg16_from_caffe.pth": "aa75",
    }  # fmt: skip
    assert all(len(known.md5) == 32 for known in sources.PUBLISHED)


# --- Caffe and Chainer. ---


CAFFE: dict[str, dict[str, Any]] = {
    "layer": {}, "layer, unpacked": {"packed": False}, "layer, double": {"double": True}, "layers": {"v1": True},
    "layers, unpacked double": {"v1": True, "packed": False, "double": True},
}  # fmt: skip


@pytest.mark.parametrize("options", list(CAFFE.values()), ids=list(CAFFE))
def test_blobs_of_caffe(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.caffemodel"
    state = {
        "conv1.weight": torch.randn(2, 3, 5, 5),
        "conv1.bias": torch.randn(2),
        "up.weight": torch.randn(3, 3, 4, 4),
    }
    write_caffemodel(path, state, **options)
    blobs = read_caffemodel(path)
    assert list(blobs) == ["conv1", "up"]
    for name, arrays in layers_of(state).items():
        for found, array in zip(blobs[name], arrays, strict=True):
            assert found.size == array.size
            np.testing.assert_array_equal(found.reshape(array.shape), array)


@pytest.mark.parametrize(
    ("backbone", "stride"), [("vgg16", 32), ("vgg16", 16), ("vgg16", 8), ("alexnet", 32), ("vgg19", 8)]
)
def test_caffe_and_chainer_networks(tmp_path: Path, backbone: str, stride: int) -> None:
    state = published_state(backbone, stride)
    write_caffemodel(tmp_path / "a.caffemodel", state)
    write_caffemodel(tmp_path / "b.caffemodel", state, v1=True)
    write_npz(tmp_path / "c.npz", state)
    save_file(state, tmp_path / "d.safetensors")
    for name in ("a.caffemodel", "b.caffemodel", "c.npz", "d.safetensors"):
        needed = {"at_once": False} if stride == 8 and "caffemodel" not in name else {}
        assert_same_network(tmp_path / name, state, backbone, stride, **needed)


def test_scaled_skips_are_layers_in_caffe(tmp_path: Path) -> None:
    state = published_state("vgg16", 8)
    scales = {"scale_pool4.weight": torch.full((8,), 0.01), "scale_pool3.weight": torch.full((4,), 0.0001)}
    write_caffemodel(tmp_path / "a.caffemodel", {**state, **scales})
    assert_same_network(tmp_path / "a.caffemodel", state, "vgg16", 8, (0.01, 0.0001))
    write_caffemodel(tmp_path / "a.caffemodel", {**state, **scales, "scale_pool4.weight": torch.full((8,), 0.02)})
    with pytest.raises(ValueError, match=r"scale_pool4 is 0\.02, not 0\.01"):
        convert(tmp_path / "a.caffemodel")
    write_caffemodel(tmp_path / "a.caffemodel", {**state, "scale_pool4.weight": scales["scale_pool4.weight"]})
    with pytest.raises(ValueError, match=r"skips of strides \[16\] are scaled, the network has \[16, 8\]"):
        convert(tmp_path / "a.caffemodel")
    write_caffemodel(tmp_path / "a.caffemodel", state)
    with pytest.raises(ValueError, match="at_once is True, but this file is not"):
        convert(tmp_path / "a.caffemodel", at_once=True)


def test_color_and_depth_in_one_trunk_and_in_two(tmp_path: Path) -> None:
    """NYUDv2: ``conv1_1_bgrd``; layers twice, with the suffixes ``color`` and ``hha``, whose scores are averaged."""
    state = published_state("vgg16", 32)
    early = {name.replace("conv1_1.", "conv1_1_bgrd."): tensor for name, tensor in state.items()}
    early["conv1_1_bgrd.weight"] = torch.randn(2, 4, 3, 3)
    write_caffemodel(tmp_path / "early.caffemodel", early)
    with pytest.raises(ValueError, match="takes 4 channels; mean needs as many values, got none"):
        convert(tmp_path / "early.caffemodel")
    weights = convert(tmp_path / "early.caffemodel", mean=(104.0, 117.0, 123.0, 9.0))
    assert (weights.model.config.in_channels, weights.preprocessing.channels) == (4, 4)
    images = torch.randn(1, 4, 40, 52)
    oracle = {**state, "conv1_1.weight": early["conv1_1_bgrd.weight"]}
    torch.testing.assert_close(
        weights.model(images), networks.official("vgg16", oracle, images, 32), rtol=1e-3, atol=1e-3
    )

    streams = {"color": published_state("vgg16", 32, seed=1), "hha": published_state("vgg16", 32, seed=2)}
    late = {f"{layer}{suffix}.{part}": tensor for suffix, state in streams.items() for name, tensor in state.items()
            for layer, part in [name.split(".")] if layer != "upscore"}  # fmt: skip
    late["upscore.weight"] = state["upscore.weight"]
    write_caffemodel(tmp_path / "late.caffemodel", late)
    model = convert(tmp_path / "late.caffemodel", mean=range(6)).model
    assert model.config.modalities == ("color", "hha")
    images = torch.randn(1, 6, 40, 52)
    parts = zip(streams.values(), images.split(3, 1), strict=True)
    expected = sum(networks.official("vgg16", state, part, 32) for state, part in parts) / 2
    torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-3)


def test_two_tasks(tmp_path: Path) -> None:
    """SIFT Flow: heads with the suffixes ``_sem`` and ``_geo`` on one trunk."""
    state, heads = {}, {"sem": published_state("vgg16", 16, 4), "geo": published_state("vgg16", 16, 2)}
    for task, tensors in heads.items():
        tensors.update({name: heads["sem"][name] for name in tensors if "score" not in name})
        for name, tensor in tensors.items():
            state[name.replace(".", f"_{task}.") if "score" in name else name] = tensor
    write_caffemodel(tmp_path / "a.caffemodel", state)
    model = convert(tmp_path / "a.caffemodel").model
    assert model.config.tasks == (("sem", 4), ("geo", 2))
    images = torch.randn(1, 3, 40, 52)
    for task, scores in model.task_scores(images).items():
        expected = networks.official("vgg16", heads[task], images, 16)
        torch.testing.assert_close(scores.logits(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("between", ["fixed", "diagonal", "dense"])
@pytest.mark.parametrize("last", ["fixed", "diagonal", "dense"])
def test_transposed_convolutions_are_as_general_as_needed(tmp_path: Path, between: str, last: str) -> None:
    state = published_state("vgg16", 16)
    for name, kind in (("upscore2.weight", between), ("upscore16.weight", last)):
        if kind == "diagonal":
            state[name] = state[name] * torch.rand(3, 1, *state[name].shape[2:])
        elif kind == "dense":
            state[name] = state[name] + 0.1 * torch.randn_like(state[name])
    torch.save(state, tmp_path / "a.pth")
    assert_same_network(tmp_path / "a.pth", state, "vgg16", 16)
    config = convert(tmp_path / "a.pth").model.config
    assert (config.upsampling, config.last_upsampling) == (between, last)


# --- Classifiers. ---


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


# --- What does not fit. ---


def test_every_mismatch_is_named(tmp_path: Path) -> None:
    state = published_state("vgg16", 16)
    del state["conv3_2.bias"], state["fc7.weight"]
    state["conv9.weight"] = torch.zeros(1)
    state["conv2_1.weight"] = torch.zeros(2, 9, 3, 3)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: the tensors do not fit") as error:
        convert(tmp_path / "a.pth")
    for part in ("missing: backbone.conv3_2.bias, backbone.fc7.weight;", "unexpected: conv9.weight;",
                 "backbone.conv2_1.weight is (2, 9, 3, 3) instead of (2, 2, 3, 3)"):  # fmt: skip
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upscore2.weight": torch.zeros(3, 3, 5, 5)}, r"upscore2.weight is \(3, 3, 5, 5\) instead of \(classes, clas"),
        ({"fc6.bias": torch.full((64,), torch.nan)}, "values that are not finite in backbone.fc6.bias"),
        ({"conv1_1.running_mean": torch.zeros(2)}, "it has batch normalization, and the published vgg16 has none"),
    ],
)
def test_what_cannot_be_converted(tmp_path: Path, change: State, message: str) -> None:
    torch.save({**published_state("vgg16", 16), **change}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a.pth")


def test_foreign_names(tmp_path: Path) -> None:
    torch.save({"layer1.0.conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet\.pth: its tensors \(layer1.0.conv1.weight, .*none of alexnet, vgg16"):
        convert(tmp_path / "resnet.pth")


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


@pytest.fixture(scope="module")
def small_caffemodel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caffe") / "a.caffemodel"
    write_caffemodel(path, {"conv1.weight": torch.randn(2, 3, 1, 1), "conv1.bias": torch.randn(2)})
    return path


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_caffemodels_are_errors(small_caffemodel: Path, data: st.DataObject) -> None:
    """Whatever the bytes: arrays or a ValueError."""
    content = bytearray(small_caffemodel.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = small_caffemodel.with_name("damaged.caffemodel")
    damaged.write_bytes(content)
    with contextlib.suppress(ValueError):
        blobs = read_caffemodel(damaged)
        assert all(isinstance(blob, np.ndarray) for arrays in blobs.values() for blob in arrays)


def test_truncated_caffemodels_and_others(small_caffemodel: Path, tmp_path: Path) -> None:
    whole = small_caffemodel.read_bytes()
    path = tmp_path / "a.caffemodel"
    for size in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"not a whole \.caffemodel: it ends within a field"):
            read_caffemodel(path)
    net = net_parameter(True)
    net.layer.add(name="data")
    path.write_bytes(net.SerializeToString())
    with pytest.raises(ValueError, match="no layer in it has any"):
        read_caffemodel(path)
    path.write_bytes(b"\x12\x02\x0a\x00")  # layers { layer {} }
    with pytest.raises(ValueError, match="first version of Caffe"):
        read_caffemodel(path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 broken"])
def test_broken_npz_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: not a whole \.npz file"):
        convert(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"b\.npz: not a whole \.npz file of numbers"):
        convert(tmp_path / "b.npz")


# --- The command. ---


def test_convert_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = published_state("vgg16", 8, classes=4)
    source, target = tmp_path / "siftflow-fcn8s.caffemodel", tmp_path / "new/fcn8s.safetensors"
    write_caffemodel(source, state)
    (tmp_path / "classes.txt").write_text("sky\ntree\n\nroad\nsea\n")
    mean = ["--mean", "114.578", "115.294", "108.353"]
    assert main(["convert", str(source), str(target), "--classes", str(tmp_path / "classes.txt"), *mean]) == 0
    assert "FCN-8s, vgg16, pad official" in capsys.readouterr().out
    weights = load_weights(target)
    assert weights.classes == ["sky", "tree", "road", "sea"]
    assert weights.preprocessing.mean == (114.578, 115.294, 108.353)
    assert weights.preprocessing.channel_order == "bgr"
    assert weights.extra == {"converted_from": "siftflow-fcn8s.caffemodel"}
    images = torch.randn(1, 3, 40, 52)
    expected = networks.official("vgg16", state, images, 8)
    torch.testing.assert_close(weights.model(images), expected, rtol=1e-3, atol=1e-3)
    # What was converted can start the training of another network.
    model = build_model(ModelConfig("vgg16", 32, 2))
    load_pretrained_backbone(model, target)
    assert torch.equal(model.backbone.get_parameter("fc6.weight"), state["fc6.weight"])

    for arguments, message in (
        ((str(source), str(tmp_path / "x.pth")), "must end in .safetensors"),
        ((str(target), str(tmp_path / "x.safetensors")), "a weight file of this program already"),
        ((str(tmp_path / "none.pth"), str(target)), "none.pth: no such file"),
        ((str(source), str(target), "--at-once"), "this file is not of that kind"),
        ((str(source), str(target), "--mean", "1"), "takes 3 channels; mean needs as many values, got 1"),
    ):
        assert main(["convert", *arguments]) == 2
        assert message in capsys.readouterr().err
    # Nothing was lost.
    assert load_weights(target).classes[0] == "sky"
