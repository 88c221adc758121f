"""Bilinear x2 upsampling plus skip."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import fcn_kernels
from bench import baselines, inputs
from bench.cases import Candidate, Case, Floor, Outputs, Problem

OPERATOR = "upsample_add"
NEEDS = ("upsample_add", "BilinearGrid")

# Scores of the middle skip of FCN-8s (a transposed convolution), and feature maps of a pyramid (interpolation).
FCN8S = ((2, 21, 34, 34), (70, 70))
PYRAMID = ((1, 256, 128, 128), (256, 256))


def build(device: torch.device, *, shape: tuple[int, int, int, int], size: tuple[int, int], gradient: bool) -> Problem:
    n, c, h, w = shape
    transposed = size == FCN8S[1]
    crop = 0 if transposed else 1
    x = inputs.scores(shape).to(device).requires_grad_(gradient)
    skip = inputs.scores((n, c, *size)).to(device).requires_grad_(gradient)
    upstream = inputs.scores((n, c, *size)).to(device) if gradient else None
    x_last, skip_last = baselines.channels_last(x), baselines.channels_last(skip)
    weight = baselines.bilinear_filter(c, 4, x)
    rows, columns = baselines.interpolation_matrix(h, size[0], x), baselines.interpolation_matrix(w, size[1], x)
    grid = (
        fcn_kernels.BilinearGrid.transposed(2, crop, size)
        if transposed
        else fcn_kernels.BilinearGrid.interpolate((h, w), size)
    )

    def interpolate(x: Tensor, skip: Tensor) -> Tensor:
        return baselines.interpolate(x, size) + skip

    def interpolate_inplace(x: Tensor, skip: Tensor) -> Tensor:
        return baselines.interpolate(x, size).add_(skip)

    def depthwise(x: Tensor, skip: Tensor, weight: Tensor) -> Tensor:
        return baselines.depthwise(x, weight, 2, crop, size) + skip

    def run(result: Tensor, x: Tensor, skip: Tensor) -> Outputs:
        return baselines.with_gradient(result, x, skip, grad=upstream)

    def exact(function: Callable[..., Tensor], *arguments: Tensor) -> Outputs:
        x64, skip64 = (t.detach().double().requires_grad_(gradient) for t in (x, skip))
        grad = None if upstream is None else upstream.double()
        return baselines.with_gradient(function(x64, skip64, *arguments), x64, skip64, grad=grad)

    compiled = baselines.compiled(interpolate)
    moved = x.nbytes + 2 * skip.nbytes + (upstream.nbytes + x.nbytes if upstream is not None else 0)
    candidate = partial(Candidate, expected="interpolate")
    return Problem(
        baselines=[
            candidate("interpolate, +", lambda: run(interpolate(x, skip), x, skip), eager=not transposed),
            candidate("interpolate, add_", lambda: run(interpolate_inplace(x, skip), x, skip)),
            candidate("interpolate, +, channels_last", lambda: run(interpolate(x_last, skip_last), x_last, skip_last)),
            Candidate(
                "depthwise conv_transpose2d, +",
                lambda: run(depthwise(x, skip, weight), x, skip),
                eager=transposed,
                expected="transposed",
            ),
            candidate("separable matmul, +", lambda: run(baselines.separable(x, rows, columns) + skip, x, skip)),
            candidate("torch.compile", lambda: run(compiled(x, skip), x, skip)),
        ],
        ours=lambda backend: run(fcn_kernels.upsample_add(x, skip, grid=grid, backend=backend), x, skip),
        ours_expected="transposed" if transposed else "interpolate",
        expected={
            "interpolate": lambda: exact(interpolate),
            "transposed": lambda: exact(depthwise, weight.double()),
        },
        # Two multiply-adds per output along the rows of the output, one for the columns shared by a pair; the gradient
        # of the skip is the incoming gradient itself and costs nothing.
        floor=Floor(bytes=moved, operations=3 * skip.numel() * (2 if gradient else 1)),
    )


def case(shape: tuple[int, int, int, int], size: tuple[int, int], gradient: bool) -> Case:
    kind = "transposed" if size == FCN8S[1] else "interpolate"
    mode = "forward + gradient" if gradient else "forward"
    make = partial(build, shape=shape, size=size, gradient=gradient)
    name = f"{list(shape)} -> {list(size)}, {kind}"
    return Case(OPERATOR, name, mode, make, small=size == FCN8S[1] or not gradient, headline=True)


CASES = [case(*problem, gradient) for problem in (FCN8S, PYRAMID) for gradient in (False, True)]
