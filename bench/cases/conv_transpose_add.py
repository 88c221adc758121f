"""Learnable depthwise transposed convolution, cropped, plus skip."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import fcn_kernels
from bench import baselines, inputs
from bench.cases import Candidate, Case, Floor, Outputs, Problem

OPERATOR = "conv_transpose_add"
NEEDS = ("conv_transpose_add",)

# x, size of the skip, stride, crop: the middle skip of FCN-8s, a pyramid's feature maps.
SHAPES = (((2, 21, 34, 34), (70, 70), 2, 0), ((1, 256, 128, 128), (256, 256), 2, 1))


def build(
    device: torch.device,
    *,
    shape: tuple[int, int, int, int],
    size: tuple[int, int],
    stride: int,
    crop: int,
    gradient: bool,
) -> Problem:
    n, c, _, _ = shape
    x = inputs.scores(shape).to(device).requires_grad_(gradient)
    skip = inputs.scores((n, c, *size)).to(device).requires_grad_(gradient)
    upstream = inputs.scores((n, c, *size)).to(device) if gradient else None
    weight = inputs.scores((c, 1, 2 * stride, 2 * stride)).to(device).requires_grad_(gradient)
    x_last, skip_last = baselines.channels_last(x), baselines.channels_last(skip)

    def add(x: Tensor, weight: Tensor, skip: Tensor) -> Tensor:
        return baselines.depthwise(x, weight, stride, crop, size) + skip

    def add_inplace(x: Tensor, weight: Tensor, skip: Tensor) -> Tensor:
        return baselines.depthwise(x, weight, stride, crop, size).add_(skip)

    def add_dense(x: Tensor, weight: Tensor, skip: Tensor) -> Tensor:
        # The published networks: a full [C, C, k, k] filter, zero off the diagonal.
        full = torch.diag_embed(weight[:, 0].movedim(0, -1)).movedim((-2, -1), (0, 1))
        y = F.conv_transpose2d(x, full, stride=stride)
        return y[:, :, crop : crop + size[0], crop : crop + size[1]] + skip

    def run(result: Tensor, x: Tensor, skip: Tensor) -> Outputs:
        return baselines.with_gradient(result, x, weight, skip, grad=upstream)

    def exact() -> Outputs:
        x64, weight64, skip64 = (t.detach().double().requires_grad_(gradient) for t in (x, weight, skip))
        grad = None if upstream is None else upstream.double()
        return baselines.with_gradient(add(x64, weight64, skip64), x64, weight64, skip64, grad=grad)

    def ours(backend: str) -> Outputs:
        y = fcn_kernels.conv_transpose_add(x, weight, skip, stride=stride, crop=crop, backend=backend)
        return run(y, x, skip)

    compiled = baselines.compiled(add)
    spellings = [
        Candidate("depthwise conv_transpose2d, +", lambda: run(add(x, weight, skip), x, skip), eager=True),
        Candidate("depthwise, add_", lambda: run(add_inplace(x, weight, skip), x, skip)),
        Candidate("depthwise, +, channels_last", lambda: run(add(x_last, weight, skip_last), x_last, skip_last)),
        Candidate("torch.compile", lambda: run(compiled(x, weight, skip), x, skip)),
    ]
    if c <= 32:
        spellings.append(Candidate("dense conv_transpose2d, +", lambda: run(add_dense(x, weight, skip), x, skip)))
    taps = 4  # a kernel of twice the stride: two taps per axis reach each output
    return Problem(
        baselines=spellings,
        ours=ours,
        expected={"exact": exact},
        # Backward reads the incoming gradient and x, and sums each product once into x's and once into weight's.
        floor=Floor(
            bytes=x.nbytes + 2 * skip.nbytes + (upstream.nbytes + 2 * x.nbytes if upstream is not None else 0),
            operations=taps * skip.numel() * (3 if gradient else 1),
        ),
    )


def case(shape: tuple[int, int, int, int], size: tuple[int, int], stride: int, crop: int, gradient: bool) -> Case:
    mode = "forward + gradient" if gradient else "forward"
    make = partial(build, shape=shape, size=size, stride=stride, crop=crop, gradient=gradient)
    small = shape == SHAPES[0][0]
    return Case(OPERATOR, f"{list(shape)} -> {list(size)}", mode, make, small=small, headline=True)


CASES = [case(*problem, gradient) for problem in SHAPES for gradient in (False, True)]
