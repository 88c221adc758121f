"""Softmax cross-entropy of scores at full resolution."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import fcn_kernels
from bench import baselines, inputs
from bench.cases import Candidate, Case, Floor, Outputs, Problem

OPERATOR = "cross_entropy"
NEEDS = ("cross_entropy",)

SHAPES = ((2, 21, 512, 512), (1, 150, 512, 512))


def build(device: torch.device, *, shape: tuple[int, int, int, int], layout: str, gradient: bool) -> Problem:
    n, c, height, width = shape
    logits = inputs.scores(shape).to(device).requires_grad_(gradient)
    if layout == "channels_last":
        logits = baselines.channels_last(logits)
    target = inputs.voronoi_labels((n, height, width), c).to(device)

    def entropy(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, ignore_index=inputs.IGNORE_INDEX)

    def exact() -> Outputs:
        logits64 = logits.detach().double().requires_grad_(gradient)
        return baselines.with_gradient(entropy(logits64), logits64)

    def ours(backend: str) -> Outputs:
        loss = fcn_kernels.cross_entropy(logits, target, ignore_index=inputs.IGNORE_INDEX, backend=backend)
        return baselines.with_gradient(loss, logits)

    compiled = baselines.compiled(entropy)
    return Problem(
        baselines=[
            Candidate("F.cross_entropy", lambda: baselines.with_gradient(entropy(logits), logits), eager=True),
            Candidate("torch.compile", lambda: baselines.with_gradient(compiled(logits), logits)),
        ],
        ours=ours,
        expected={"exact": exact},
        # Per score an exponential, the maximum and the sum; for the gradient one multiply-add more.
        floor=Floor(
            bytes=logits.nbytes * (2 if gradient else 1) + target.nbytes,
            operations=logits.numel() * (3 if gradient else 2),
            exps=logits.numel(),
        ),
    )


def case(shape: tuple[int, int, int, int], layout: str, gradient: bool) -> Case:
    mode = "forward + gradient" if gradient else "forward"
    make = partial(build, shape=shape, layout=layout, gradient=gradient)
    small = shape == SHAPES[0] and layout == "NCHW" and gradient
    return Case(OPERATOR, f"{list(shape)}, {layout}", mode, make, small=small, headline=layout == "NCHW")


CASES = [
    case(shape, layout, gradient)
    for shape in SHAPES
    for layout in ("NCHW", "channels_last")
    for gradient in (False, True)
]
