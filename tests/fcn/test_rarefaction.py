"""Shift-and-stitch and rarefied filters give the same scores and gradients (CVPR 2015, section 3.2)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import fcn_kernels
from fcn.networks.graph import reach_of
from fcn.networks.models import ModelConfig, build_model
from fcn.networks.rarefaction import dilated_avg_pool2d, rarefy, shift_and_stitch


@st.composite
def stacks(draw: st.DrawFn, *, wide: bool = True) -> nn.Sequential:
    """One to three convolutions and poolings, kernels and strides from 1 to 3, not the same along rows and columns."""

    def pair() -> tuple[int, int]:
        return draw(st.integers(1, 3)), draw(st.integers(1, 3)) if wide else 1

    layers: list[nn.Module] = []
    channels = 2
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(("conv", "grouped", "max", "max_ceil", "avg")))
        if kind in ("conv", "grouped"):
            bias, groups = draw(st.booleans()), 2 if kind == "grouped" else 1
            layers += [nn.Conv2d(channels, 4, pair(), pair(), groups=groups, bias=bias), nn.ReLU(inplace=True)]
            channels = 4
        elif kind == "avg":
            layers.append(nn.AvgPool2d(pair(), pair()))
        else:
            layers.append(nn.MaxPool2d(pair(), pair(), ceil_mode=kind == "max_ceil"))
    if draw(st.booleans()):
        layers.insert(draw(st.integers(0, len(layers))), nn.LocalResponseNorm(3))
    layers.append(nn.Conv2d(int(channels), 2, 1))
    return nn.Sequential(*layers).double().eval()


def draw_image(draw: Any, net: nn.Module, *, wide: bool = True) -> Tensor:
    field = reach_of(net).field
    height = field[0] + draw(st.integers(0, 9))
    return torch.randn(
        draw(st.integers(1, 2)), 2, height, field[1] + draw(st.integers(0, 9)) if wide else 1, dtype=torch.float64
    )


def assert_equal_with_gradients(net: nn.Module, a: Any, b: Any, x: Tensor) -> None:
    x.requires_grad_(True)
    parameters = list(net.parameters())
    left, right = a(x), b(x)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(left)
    gradients = [torch.autograd.grad(y, [x, *parameters], cotangent) for y in (left, right)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("wide", [False, True], ids=["one axis", "two axes"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_stitching_equals_rarefying(wide: bool, data: st.DataObject) -> None:
    """The theorem, at every position, in values and in gradients of the image and of every parameter."""
    torch.manual_seed(data.draw(st.integers(0, 999)))
    net = data.draw(stacks(wide=wide))
    x = draw_image(data.draw, net, wide=wide)
    reach = reach_of(net)
    rare = rarefy(net)
    assert rare(x).shape[2:] == tuple(x.shape[a + 2] - reach.field[a] + 1 for a in (0, 1))
    assert_equal_with_gradients(net, rare, lambda x: shift_and_stitch(net, x, reach.stride), x)
    # What the network itself gives is every stride-th of them.
    rows, columns = reach.outputs((x.shape[2], x.shape[3]))
    sampled = rare(x)[:, :, :: reach.stride[0], :: reach.stride[1]]
    torch.testing.assert_close(sampled, net(x)[:, :, :rows, :columns], rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_partial_rarefaction(data: st.DataObject) -> None:
    """To the stride of the first layers, for any cut; shifts are then multiples of that stride."""
    torch.manual_seed(data.draw(st.integers(0, 999)))
    net = data.draw(stacks())
    x = draw_image(data.draw, net)
    total = reach_of(net).stride
    stride = reach_of(net[: data.draw(st.integers(0, len(net)))].eval()).stride
    f = (total[0] // stride[0], total[1] // stride[1])
    assert_equal_with_gradients(net, rarefy(net, stride), lambda x: shift_and_stitch(net, x, f), x)


class Inception(nn.Module):
    """Branches with paddings of their own, joined twice, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 5, 2, 2)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.one, self.three = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 3, padding=1)
        self.branch_pool = nn.MaxPool2d(3, 1, 1)
        self.last = nn.Conv2d(7, 2, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x).relu())
        joined = torch.cat([self.one(x).relu(), self.three(x), self.branch_pool(x) + x], 1)
        y: Tensor = self.last(joined)
        return y


def test_branches_and_padding_agree_where_no_padding_is_seen() -> None:
    torch.manual_seed(0)
    net = Inception().double().eval()
    reach = reach_of(net)
    assert (reach.field, reach.stride, reach.padding) == ((25, 25), (8, 8), (6, 6))
    x = torch.randn(1, 2, 61, 70, dtype=torch.float64)
    dense, stitched = rarefy(net)(x), shift_and_stitch(net, x, 8)
    assert dense.shape == stitched.shape == (1, 2, 61 + 12 - 25 + 1, 70 + 12 - 25 + 1)
    # From 8 on, not 6: a copy without its first 7 rows is padded from there.
    inside = [slice(8, reach.padding[a] + x.shape[a + 2] - reach.field[a] + 1) for a in (0, 1)]
    torch.testing.assert_close(dense[:, :, *inside], stitched[:, :, *inside], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(dense[:, :, 0], stitched[:, :, 0])  # there a shifted copy meets its own padding


def test_a_trunk_of_the_package() -> None:
    """All taps at stride 8; away from the borders they hold the trunk's own maps."""
    torch.manual_seed(0)
    net = build_model(ModelConfig("small", pad="official")).backbone.eval()
    rare = rarefy(net, 8)
    x = torch.randn(1, 3, 90, 75)
    plain, dense = net(x), rare(x)
    rows, columns = dense["pool3"].shape[2:]
    torch.testing.assert_close(dense["pool3"], plain["pool3"][:, :, :rows, :columns])
    inner = [dense["pool4"][:, :, 4:28:2, 4:28:2], plain["pool4"][:, :, 2:14, 2:14]]
    torch.testing.assert_close(*inner, rtol=1e-4, atol=1e-5)
    assert {id(p) for p in rare.parameters()} == {id(p) for p in net.parameters()}
    assert list(rare.state_dict()) == list(net.state_dict())


def test_dilation_is_the_zero_stuffed_filter() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(2, 3, 2, 3, bias=False), nn.Conv2d(3, 2, 3, 2)
    net = nn.Sequential(first, second).double().eval()
    x = torch.randn(2, 2, 30, 31, dtype=torch.float64)
    stuffed = fcn_kernels.rarefy(second.weight, 3)
    expected = torch.conv2d(torch.conv2d(x, first.weight), stuffed, second.bias)
    torch.testing.assert_close(rarefy(net)(x), expected, rtol=1e-12, atol=1e-12)
    average = torch.full((1, 1, 3, 2), 1 / 6, dtype=torch.float64)
    pooled = dilated_avg_pool2d(x[:, :1], (3, 2), (1, 2), (1, 0), (2, 3))
    expected = torch.conv2d(x[:, :1], fcn_kernels.rarefy(average, (2, 3)), stride=(1, 2), padding=(1, 0))
    torch.testing.assert_close(pooled, expected, rtol=1e-12, atol=1e-12)


class Shapely(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[2] > 3 else -x


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Conv2d(2, 2, 3), "evaluation mode"),
        (Shapely().eval(), "Shapely has no fixed graph of layers"),
        (nn.Sequential(nn.Softmax(1)).eval(), "neither a convolution or pooling"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")).eval(), "padded with a number of zeros"),
        (nn.Sequential(nn.Conv2d(2, 2, 3, stride=3)).eval(), r"cannot leave \(2, 2\)"),
    ],
)
def test_networks_that_cannot_be_rarefied(net: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rarefy(net, 2)


def test_wrong_f_and_small_images() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 5, stride=4)).eval()
    with pytest.raises(ValueError, match=r"f must divide the network's stride \(4, 4\), got \(3, 3\)"):
        shift_and_stitch(net, torch.zeros(1, 2, 9, 9), 3)
    with pytest.raises(ValueError, match=r"\(9, 4\) pixels.* receptive field \(5, 5\)"):
        shift_and_stitch(net, torch.zeros(1, 2, 9, 4), 4)
    with pytest.raises(ValueError, match="one tensor"):
        shift_and_stitch(build_model(ModelConfig("small")).backbone.eval(), torch.zeros(1, 3, 9, 9), 4)
