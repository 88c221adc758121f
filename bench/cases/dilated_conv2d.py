"""Dilated 3 x 3 convolution with bias and ReLU."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import fcn_kernels
from bench import baselines, inputs
from bench.cases import Candidate, Case, Floor, Outputs, Problem

OPERATOR = "dilated_conv2d"
NEEDS = ("dilated_conv2d",)

CHANNELS, SIZE = 512, 64
DILATIONS = (1, 2, 4, 12, 24)
WINOGRAD = 36 / 16
"""Products for each output, input and output channel of a 3 x 3 filter by F(4x4, 3x3), in every pass; directly 9."""


def taps_inside(size: int, dilation: int) -> int:
    """Pairs of (output pixel, tap) of one axis whose tap lies in the image; the others multiply zeros."""
    return size + 2 * max(0, size - dilation)


def build(device: torch.device, *, dilation: int, dtype: torch.dtype, gradient: bool) -> Problem:
    x = inputs.scores((1, CHANNELS, SIZE, SIZE)).to(device, dtype)
    weight = (inputs.scores((CHANNELS, CHANNELS, 3, 3)) / (3 * CHANNELS**0.5)).to(device, dtype)
    bias = inputs.scores((1, CHANNELS, 1, 1)).flatten().to(device, dtype)
    x, weight, bias = (each.requires_grad_(gradient) for each in (x, weight, bias))
    x_last, weight_last = baselines.channels_last(x), baselines.channels_last(weight)
    upstream = inputs.scores((1, CHANNELS, SIZE, SIZE)).to(device, dtype)

    def conv(x: Tensor, weight: Tensor, bias: Tensor) -> Outputs:
        y = F.conv2d(x, weight, bias, padding=dilation, dilation=dilation).relu_()
        return baselines.with_gradient(y, x, weight, bias, grad=upstream.to(y.dtype))

    def ours(backend: str) -> Outputs:
        y = fcn_kernels.dilated_conv2d(
            x_last, weight_last, bias, dilation=dilation, padding=dilation, relu=True, backend=backend
        )
        return baselines.with_gradient(y, x_last, weight_last, bias, grad=upstream)

    compiled = baselines.compiled(conv)
    products = CHANNELS**2 * taps_inside(SIZE, dilation) ** 2
    if dtype == torch.float32 and device.type == "cpu":
        products = min(products, int(CHANNELS**2 * WINOGRAD * SIZE**2))
    return Problem(
        baselines=[
            Candidate("conv2d, relu", lambda: conv(x, weight, bias), eager=True),
            Candidate("conv2d, relu, channels_last", lambda: conv(x_last, weight_last, bias)),
            Candidate("torch.compile, channels_last", lambda: compiled(x_last, weight_last, bias)),
        ],
        ours=ours,
        expected={"exact": lambda: conv(x.double(), weight.double(), bias.double())},
        floor=Floor(
            bytes=(2 if gradient else 1) * (2 * x.nbytes + weight.nbytes),
            operations=(3 if gradient else 1) * products,
        ),
        tolerance=1e-5 if dtype == torch.float32 else 1e-2,
    )


def case(dilation: int, dtype: torch.dtype, gradient: bool = False) -> Case:
    name = f"[1, {CHANNELS}, {SIZE}, {SIZE}], dilation {dilation}, {str(dtype).removeprefix('torch.')}"
    make = partial(build, dilation=dilation, dtype=dtype, gradient=gradient)
    small = dilation == 12 and dtype == torch.float32 and not gradient
    mode = "forward + gradient" if gradient else "forward"
    return Case(OPERATOR, name, mode, make, dtype, small=small, headline=dilation in (1, 12))


CASES = [
    *(case(dilation, dtype) for dtype in (torch.float32, torch.bfloat16) for dilation in DILATIONS),
    *(case(dilation, torch.float32, gradient=True) for dilation in (1, 2, 12)),
]
