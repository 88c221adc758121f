"""Reusing what padding makes gives what the network gives, and stops when its weights change."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fcn.networks.models import ModelConfig, build_model
from fcn.networks.padding import ReusedPadding, prepare
from fcn_kernels.flops import flop_counter


class Taps(nn.Module):
    """A chain of layers that gives several of its maps, as the backbones do."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = {}
        for i, layer in enumerate(self.layers):
            x = layer(x)
            maps[str(i)] = x
        return {name: y for name, y in maps.items() if int(name) % 3 == 2 or int(name) == len(maps) - 1}


@st.composite
def padded_nets(draw: st.DrawFn) -> Taps:
    """Like the trunks: a wide padding in front, then convolutions and poolings of any kernel, stride and padding."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    layers: list[nn.Module] = [nn.Conv2d(2, 4, pair(1, 5), 1, pair(8, 24)), nn.ReLU(inplace=True)]
    for _ in range(draw(st.integers(1, 4))):
        kernel = pair(1, 4)
        stride = (draw(st.integers(1, kernel[0])), draw(st.integers(1, kernel[1])))
        half = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2)))
        kind = draw(st.sampled_from(("conv", "conv", "dilated", "max", "max_ceil", "norm")))
        if kind in ("conv", "dilated"):
            dilation = 2 if kind == "dilated" else 1
            layers.append(nn.Conv2d(4, 4, kernel, stride, pair(0, 3), dilation, groups=draw(st.sampled_from((1, 2)))))
            layers += [nn.ReLU(inplace=True)] * draw(st.integers(0, 1))
        elif kind == "norm":
            layers += [nn.BatchNorm2d(4), nn.LocalResponseNorm(3)]
        else:
            layers.append(nn.MaxPool2d(kernel, stride, half, ceil_mode=kind == "max_ceil"))
    return Taps(*layers).double().eval()


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_equals_the_network(data: st.DataObject) -> None:
    """Every tap, whatever the layers and sizes; where the network itself fails there is nothing to compare."""
    torch.manual_seed(data.draw(st.integers(0, 999)))
    net = data.draw(padded_nets())
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    x = torch.randn(data.draw(st.integers(0, 2)), 2, *(data.draw(st.integers(1, 20)) for _ in "hw")).double()
    with torch.no_grad():
        try:
            expected = net(x)
        except RuntimeError:
            return
        prepared = prepare(net, x)
        for images in (x, torch.randn(3, *x.shape[1:], dtype=torch.float64)):
            given, expected = images.clone(), net(images)
            torch.testing.assert_close(prepared(images), expected, rtol=1e-11, atol=1e-11)
            assert torch.equal(images, given)


@pytest.mark.parametrize("size", [(1, 1), (37, 64), (61, 90)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trunk_of_the_package(dtype: torch.dtype, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    trunk = build_model(ModelConfig("small", pad="official")).backbone.eval().to(dtype)
    for name, parameter in trunk.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    run, images = ReusedPadding(trunk), torch.randn(2, 3, *size).to(dtype)
    with torch.inference_mode():
        expected = trunk(images)
        assert torch.equal(run(images)["fc7"], expected["fc7"])  # the first time a size comes
        for actual in (run(images), run(images)):
            assert list(actual) == list(expected)
            for name, value in actual.items():
                scale = float(expected[name].float().abs().max())
                tolerance = scale * (0.03 if dtype == torch.bfloat16 else 1e-5)
                torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("size", "plain", "live"), [((500, 500), 150.3, 94.0), ((375, 500), 123.3, 72.5), ((256, 256), 63.6, 29.3)]
)
def test_work_of_vgg16(size: tuple[int, int], plain: float, live: float) -> None:
    """Billions of multiply-adds in conv1_1 to conv5_3, counted on a trunk of a sixteenth of the channels."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in zip((4, 8, 16, 32, 32), (2, 2, 3, 3, 3), strict=True):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1 if layers else 100, bias=False), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    net = nn.Sequential(*layers).eval()
    images = torch.zeros(1, 3, *size)

    def billions(run: nn.Module, first: int) -> float:
        with torch.no_grad(), flop_counter() as counter:
            run(images)
        scaled = counter.get_total_flops() // 2
        ones = first * 27 * 4  # conv1_1, whose input is an image: it alone grows 16 and not 256 times
        return ((scaled - ones) * 256 + ones * 16) / 1e9

    height, width = size
    assert round(billions(net, (height + 198) * (width + 198)), 1) == plain
    assert round(billions(prepare(net, images), (height + 2) * (width + 2)), 1) == live


def test_prepared_for_a_size_and_for_these_weights() -> None:
    torch.manual_seed(0)
    trunk = build_model(ModelConfig("small", pad="official")).backbone.double().eval()
    prepared: list[nn.Module] = []

    def finish(net: nn.Module) -> nn.Module:
        prepared.append(net)
        return net

    run = ReusedPadding(trunk, finish, sizes_kept=2)
    images = torch.randn(1, 3, 20, 30, dtype=torch.float64)

    def check(new: int) -> None:
        before = len(prepared)
        torch.testing.assert_close(run(images), trunk(images), rtol=1e-10, atol=1e-10)
        assert len(prepared) - before == new

    with torch.no_grad():
        for new in (0, 1, 0):
            check(new)
        trunk.conv1_1.bias.add_(1)
        check(1)
        trunk.fc6.weight = nn.Parameter(trunk.fc6.weight.flip(0))
        check(1)
        trunk.load_state_dict({k: 2 * v for k, v in trunk.state_dict().items()})
        check(1)
        for width in range(2):  # The least recent size makes room, and must come twice again.
            run(images.new_zeros(1, 3, 20, 31 + width))
            run(images.new_zeros(1, 3, 20, 31 + width))
        check(0)
        check(1)
    # With gradients, or in training, the network itself runs.
    images.requires_grad_(True)
    (gradient,) = torch.autograd.grad(run(images)["fc7"].sum(), images)
    assert gradient.abs().max() > 0
    trunk.train()
    with torch.no_grad():
        assert not torch.equal(run(images)["fc7"], run(images)["fc7"])  # dropout


def test_networks_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="average poolings"):
        ReusedPadding(nn.Sequential(nn.AvgPool2d(2)).eval())
    with pytest.raises(ValueError, match="evaluation mode"):
        ReusedPadding(nn.Conv2d(1, 1, 1))
    with pytest.raises(ValueError, match="skips the image"):
        prepare(nn.Sequential(nn.Conv2d(1, 1, 1, stride=4, padding=2)).eval(), torch.zeros(1, 1, 1, 1))


def test_a_pooling_of_negative_values_sees_no_zeros() -> None:
    """What is outside must not win a maximum."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, padding=5), nn.MaxPool2d(2, 2, 1)).eval()
    nn.init.constant_(net[0].weight, -1)
    nn.init.constant_(net[0].bias, -3)
    x = torch.rand(1, 1, 4, 3)
    with torch.no_grad():
        torch.testing.assert_close(prepare(net, x)(x), F.max_pool2d(F.pad(-x - 3, (5,) * 4, value=-3), 2, 2, 1))
