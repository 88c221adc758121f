"""The whole head of FCN-8s at 500 x 500, 21 classes, padding 100: three score maps in, label map out."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import fcn_kernels
from bench import baselines, inputs
from bench.cases import Candidate, Case, Floor, Outputs, Problem, label_error

OPERATOR = "fcn8s_head"
NEEDS = ("upsample_add", "upsample_argmax", "BilinearGrid")

CLASSES = 21
# Offsets and sizes of the published network at 500 x 500.
POOL4, POOL3, IMAGE = (5, (34, 34)), (9, (70, 70)), (31, (500, 500))


def crop(x: Tensor, offset: int, size: tuple[int, int]) -> Tensor:
    return x[:, :, offset : offset + size[0], offset : offset + size[1]]


def build(device: torch.device) -> Problem:
    fc7 = inputs.blob_scores((1, CLASSES, 16, 16)).to(device)
    pool4 = inputs.scores((1, CLASSES, 44, 44)).to(device)
    pool3 = inputs.scores((1, CLASSES, 88, 88)).to(device)
    weight2, weight8 = baselines.bilinear_filter(CLASSES, 4, fc7), baselines.bilinear_filter(CLASSES, 16, fc7)
    transposed = fcn_kernels.BilinearGrid.transposed
    grid4, grid3, grid = transposed(2, 0, POOL4[1]), transposed(2, 0, POOL3[1]), transposed(8, *IMAGE)

    def upsampled(fc7: Tensor, pool4: Tensor, pool3: Tensor, weight2: Tensor, weight8: Tensor) -> Tensor:
        x = baselines.depthwise(fc7, weight2, 2, 0, POOL4[1]) + crop(pool4, *POOL4)
        x = baselines.depthwise(x, weight2, 2, 0, POOL3[1]) + crop(pool3, *POOL3)
        return baselines.depthwise(x, weight8, 8, *IMAGE)

    def with_argmax(*scores: Tensor) -> Tensor:
        return upsampled(*scores).argmax(1)

    def ours(backend: str) -> Outputs:
        add = partial(fcn_kernels.upsample_add, backend=backend)
        x = add(add(fc7, crop(pool4, *POOL4), grid=grid4), crop(pool3, *POOL3), grid=grid3)
        return (fcn_kernels.upsample_argmax(x, grid=grid, backend=backend),)  # type: ignore[return-value]

    arguments = (fc7, pool4, pool3, weight2, weight8)
    last = tuple(baselines.channels_last(x) for x in arguments)
    compiled = baselines.compiled(with_argmax)
    pixels, skips = IMAGE[1][0] * IMAGE[1][1], 34**2 + 70**2
    return Problem(
        baselines=[
            Candidate("conv_transpose2d, argmax", lambda: (with_argmax(*arguments),), eager=True),
            Candidate("conv_transpose2d, max", lambda: (upsampled(*arguments).max(1).indices,)),
            Candidate("conv_transpose2d, argmax, channels_last", lambda: (with_argmax(*last),)),
            Candidate("torch.compile", lambda: (compiled(*arguments),)),
        ],
        ours=ours,
        expected={"exact": lambda: (upsampled(*(x.double() for x in arguments)),)},
        floor=Floor(
            bytes=fc7.nbytes + 4 * CLASSES * skips + pixels,
            operations=CLASSES * (3 * skips + 4 * pixels),
        ),
        error=label_error,
    )


CASES = [Case(OPERATOR, "500 x 500, 21 classes", "forward", build, small=True, headline=True)]
