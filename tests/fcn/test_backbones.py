"""Classifiers, and the step from a classifier to a fully convolutional network."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcn.networks.backbones import BACKBONES, Modalities, Net, convolutionalize
from fcn.networks.geometry import Layer, output_size, paths, receptive_field
from fcn.networks.models import ModelConfig, build_model
from tests.fcn import networks
from tests.fcn.networks import narrowed

PUBLISHED = ("alexnet", "vgg16", "vgg19", "googlenet")


def classifier(backbone: str, **options: Any) -> Net:
    torch.manual_seed(0)
    net = narrowed(BACKBONES[backbone], 16).classifier(**options).double().eval()
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return net


def scores(net: Net, images: Tensor) -> Tensor:
    """``[N, classes, h, w]`` of a network with one output."""
    (output,) = net(images).values()
    return output if output.dim() == 4 else output[:, :, None, None]


def plain_classifier(backbone: str, p: dict[str, Tensor], images: Tensor) -> Tensor:
    if backbone == "googlenet":
        last = networks.googlenet(p, images)["inception_5b"].mean((2, 3))
        return F.linear(last, p["loss3/classifier.weight"], p["loss3/classifier.bias"])
    side, channels = (6 if backbone == "alexnet" else 7), p["fc6.weight"].shape[1]
    p = dict(p)
    for name in ("fc6", "fc7"):  # The same weights, written as convolutions.
        k = side if name == "fc6" else 1
        p[f"{name}.weight"] = p[f"{name}.weight"].view(-1, channels // k**2 if k > 1 else p["fc6.bias"].numel(), k, k)
    if backbone == "alexnet":
        maps = networks.alexnet(p, images, 0)
    else:
        maps = networks.vgg(p, images, networks.VGG_DEPTHS[backbone], 1)
    return F.linear(maps["fc7"].flatten(1), p["fc8.weight"], p["fc8.bias"])


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_classifiers_equal_plain_pytorch(backbone: str) -> None:
    net = classifier(backbone)
    size = BACKBONES[backbone].image_size
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    expected = plain_classifier(backbone, dict(net.named_parameters()), images)
    torch.testing.assert_close(scores(net, images)[:, :, 0, 0], expected, rtol=1e-9, atol=1e-12)
    # On its own image the convolutional network is the classifier.
    torch.testing.assert_close(scores(convolutionalize(net), images)[:, :, 0, 0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backbone", PUBLISHED)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_a_score_is_the_classifier_on_its_window(backbone: str, data: st.DataObject) -> None:
    """Without zero padding, which hides from the classifier what lies outside its window.

    Layers of GoogLeNet's branches, which are aligned by their padding, see a single cell instead.
    """
    torch.manual_seed(0)
    layers = []
    for layer in narrowed(BACKBONES[backbone], 64).layers:
        branch = backbone == "googlenet" and layer.padding > 0 and layer.stride == 1
        layers.append(replace(layer, padding=0, kernel_size=1 if branch else layer.kernel_size))
    net = Net(layers, (layers[-1].name,)).double().eval()
    field = receptive_field(paths(layers)[layers[-1].name])
    height, width = (field + data.draw(st.integers(0, 75)) for _ in range(2))
    images = torch.randn(1, 3, height, width, dtype=torch.float64)
    everywhere = scores(convolutionalize(net), images)
    row, column = (data.draw(st.integers(0, (size - field) // 32)) for size in (height, width))
    window = images[:, :, 32 * row :, 32 * column :][:, :, :field, :field]
    expected = scores(net, window)[:, :, 0, 0]
    torch.testing.assert_close(everywhere[:, :, row, column], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("backbone", "as_classifier", "as_fcn32s"),
    [
        ("alexnet", 60_965_224, 56_954_261),
        ("vgg16", 138_357_544, 134_346_581),
        ("vgg19", 143_667_240, 139_656_277),
        ("googlenet", 6_998_552, 5_995_077),
    ],
)
def test_published_numbers_of_parameters(backbone: str, as_classifier: int, as_fcn32s: int) -> None:
    with torch.device("meta"):
        net, model = BACKBONES[backbone].classifier(), build_model(ModelConfig(backbone, 32, 21, "official"))
    assert sum(p.numel() for p in net.parameters()) == as_classifier
    assert sum(p.numel() for p in model.parameters()) == as_fcn32s


def test_parts_of_vgg16() -> None:
    with torch.device("meta"):
        net = BACKBONES["vgg16"].classifier()
    counts: dict[str, int] = {}
    for name, parameter in net.named_parameters():
        part = "conv" if name.startswith("conv") else name[:3]
        counts[part] = counts.get(part, 0) + parameter.numel()
    assert counts == {"conv": 14_714_688, "fc6": 102_764_544, "fc7": 16_781_312, "fc8": 4_097_000}


def test_convolutionalize_shares_the_weights_and_keeps_the_mode() -> None:
    net = classifier("vgg16")
    trunk = convolutionalize(net, ("fc7", "pool4"), padding=100)
    assert not trunk.training
    assert trunk.get_parameter("fc6.weight").shape[2:] == (7, 7)
    assert not any(name.startswith("fc8") for name, _ in trunk.named_parameters())
    with torch.no_grad():
        net.get_parameter("fc6.weight").fill_(3.0)
    assert (trunk.get_parameter("fc6.weight") == 3).all()


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_padding_same_keeps_centers_and_sizes(backbone: str) -> None:
    """Each map has about size / stride cells, at least one, centered on their share of the image."""
    architecture = BACKBONES[backbone]
    with torch.device("meta"):
        trunk = convolutionalize(architecture.classifier(), architecture.taps, padding="same", discard_average=True)
    for tap, stride in zip(architecture.taps, (32, 16, 8, 4), strict=True):
        assert trunk.coord_map(tap).scale == stride
        assert abs(trunk.coord_map(tap).shift) <= stride / 2
        for size in (1, 2, 31, 33, 224, 375):
            assert size <= stride * output_size(trunk.path(tap), size) <= size + 3 * stride


def test_maps_are_let_go_after_their_last_reader() -> None:
    net = convolutionalize(classifier("googlenet"), ("inception_5b/output", "inception_3b/output"))
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def record(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal most
        alive.append(weakref.ref(output))
        most = max(most, sum(ref() is not None for ref in alive))

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(record)
    with torch.no_grad():
        net(torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    assert len(alive) == 57
    assert most <= 6  # A module's four branches, a reduction, and its output.


def test_joined_trunks() -> None:
    net = narrowed(BACKBONES["vgg16"], 32)
    trunks = {name: convolutionalize(net.classifier(2, 0.0), net.taps, padding="same") for name in ("color", "depth")}
    joined = Modalities(trunks)
    images = torch.randn(2, 4, 40, 50)
    maps = joined(images)
    for tap in net.taps:
        parts = [trunk(part)[tap] for trunk, part in zip(trunks.values(), images.split(2, 1), strict=True)]
        assert torch.equal(maps[tap], torch.cat(parts, 1))
        assert (joined.channels(tap), joined.coord_map(tap)) == (maps[tap].shape[1], trunks["color"].coord_map(tap))
    assert all(name.startswith(("color.", "depth.")) for name in joined.state_dict())


def test_wrong_layers() -> None:
    layers = (Layer("a", "conv", 2, 3), Layer("b", "lrn", 3))
    with pytest.raises(ValueError, match="b: it has 3 channels, its input 2"):
        Net(layers, ("b",))
    with pytest.raises(ValueError, match="no layer is named c; there are a, b"):
        Net(layers, ("c",))
    with pytest.raises(ValueError, match="fc6: fully connected to a map of size 7, got size 8"):
        output_size(BACKBONES["vgg16"].layers, 256)


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_other_images_are_refused_by_the_classifier(backbone: str) -> None:
    size = BACKBONES[backbone].image_size + 32
    with pytest.raises(ValueError, match="fully connected to a map of size"):
        classifier(backbone)(torch.zeros(1, 3, size, size, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "convolution"}, "a: a layer's kind must be one of conv, linear, .*, got 'convolution'"),
        ({"kind": "conv", "then": ("gelu",)}, "a: what follows a layer must be of batch_norm, .*, got 'gelu'"),
    ],
)
def test_layers_that_nobody_knows(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Layer("a", channels=3, **options)


def test_no_trunk_has_transposed_convolutions() -> None:
    with pytest.raises(ValueError, match="up: a trunk has no conv_transpose layers"):
        Net((Layer("a", "conv", 3), Layer("up", "conv_transpose", 3, 4, 2)), ("up",))
