"""VGG16 from conv1_1 to conv5_3, with its poolings, at 500 x 500: 77 G multiply-adds, nearly all of FCN's time."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fcn_kernels
from bench import baselines, engines, inputs
from bench.cases import Candidate, Case, Floor, Outputs, Problem
from bench.cases.dilated_conv2d import WINOGRAD

OPERATOR = "vgg16_convolutions"
NEEDS = ("dilated_conv2d",)

SIZE = 500
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def network() -> tuple[nn.Sequential, int]:
    """With random weights that keep the scale of the maps; and its products by Winograd's algorithm."""
    layers: list[nn.Module] = []
    channels, size, products = 3, SIZE, 0.0
    for number, stage in enumerate(STAGES):
        if number > 0:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            size = -(-size // 2)
        for width in stage:
            convolution = nn.Conv2d(channels, width, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight)
            layers += [convolution, nn.ReLU()]
            products += WINOGRAD * channels * width * size**2
            channels = width
    return nn.Sequential(*layers).eval().requires_grad_(False), int(products)


def build(device: torch.device) -> Problem:
    net, products = network()
    net = net.to(device)
    image = inputs.blob_scores((1, 3, SIZE, SIZE)).to(device)
    last = baselines.channels_last(image)
    net_last = copy.deepcopy(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    convolutions = [layer for layer in net_last if not isinstance(layer, nn.ReLU)]

    def ours(backend: str) -> Outputs:
        x = last
        for layer in convolutions:
            if isinstance(layer, nn.Conv2d):
                x = fcn_kernels.dilated_conv2d(x, layer.weight, layer.bias, padding=1, relu=True, backend=backend)
            else:
                x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        return (x,)

    def right() -> Outputs:
        y: Tensor = copy.deepcopy(net).double()(image.double())
        return (y,)

    compiled = baselines.compiled(net_last)
    return Problem(
        baselines=[
            Candidate("conv2d, relu", lambda: (net(image),), eager=True),
            Candidate("conv2d, relu, channels_last", lambda: (net_last(last),)),
            Candidate("torch.compile, channels_last", lambda: (compiled(last),)),
            *(engines.candidates(net, image) if device.type == "cpu" else ()),
        ],
        ours=ours,
        expected={"exact": right},
        floor=Floor(bytes=image.nbytes + sum(p.nbytes for p in net.parameters()), operations=products),
        tolerance=1e-3,  # MNN's; the table shows the error of each
    )


CASES = [Case(OPERATOR, f"{SIZE} x {SIZE}, float32", "forward", build, small=True, headline=True)]
