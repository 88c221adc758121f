"""Coarse scores -> bilinear upsampling -> softmax -> Dice, alone and with cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fcn_kernels
from bench import baselines, inputs
from bench.cases import Candidate, Case, Floor, Outputs, Problem

OPERATOR = "upsample_region_sums"
NEEDS = ("upsample_dice_loss",)

SHAPES = ((2, 21, 64, 64, 8), (1, 2, 64, 64, 8), (1, 150, 64, 64, 8))


def floor(x: Tensor, target: Tensor, stride: int) -> Floor:
    """The gradient needs the sums first, so exponentials are gone through twice: 4 of them per cell and class.

    Per pixel and class, forward 2 multiply-adds for the sum of exponentials and 1 for the probability's; backward 3 for
    that sum and the weighed one, 3 for the gradient. Cross-entropy shares all of them.
    """
    cells = target.numel() / stride**2
    return Floor(
        bytes=2 * (x.nbytes + target.nbytes) + x.nbytes,
        operations=target.numel() * x.shape[1] * 9,
        exps=int(8 * cells * x.shape[1]),
    )


def build(device: torch.device, *, shape: tuple[int, ...], entropy: bool) -> Problem:
    n, c, h, w, f = shape
    size = (h * f, w * f)
    x = inputs.scores((n, c, h, w)).to(device).requires_grad_()
    target = inputs.voronoi_labels((n, *size), c).to(device)
    x_last = baselines.channels_last(x)
    rows, columns = baselines.interpolation_matrix(h, size[0], x), baselines.interpolation_matrix(w, size[1], x)

    def loss(logits: Tensor) -> Tensor:
        """As MONAI and segmentation_models.pytorch spell it."""
        valid = target != inputs.IGNORE_INDEX
        p = logits.softmax(1) * valid[:, None]
        y = F.one_hot(torch.where(valid, target, 0), c).movedim(-1, 1) * valid[:, None]
        dice = 2 * (p * y).sum((2, 3)) / (p.sum((2, 3)) + y.sum((2, 3)) + 1e-5)
        total = (1 - dice).mean()
        return total + F.cross_entropy(logits, target, ignore_index=inputs.IGNORE_INDEX) if entropy else total

    def interpolate(x: Tensor) -> Tensor:
        return loss(baselines.interpolate(x, size))

    def ours(backend: str) -> Outputs:
        options: dict[str, Any] = {"ignore_index": inputs.IGNORE_INDEX, "backend": backend}
        sums = fcn_kernels.upsample_region_sums(x, target, **options)
        total = (1 - 2 * sums.intersection / (sums.prediction + sums.target + 1e-5)).mean()
        if entropy:
            total = total + fcn_kernels.upsample_cross_entropy(x, target, **options)
        return baselines.with_gradient(total, x)

    def exact(function: Callable[..., Tensor]) -> Outputs:
        x64 = x.detach().double().requires_grad_()
        return baselines.with_gradient(function(x64), x64)

    compiled = baselines.compiled(interpolate)
    grad = baselines.with_gradient
    return Problem(
        baselines=[
            Candidate("interpolate", lambda: grad(interpolate(x), x), eager=True),
            Candidate("interpolate, channels_last", lambda: grad(interpolate(x_last), x_last)),
            Candidate("separable matmul", lambda: grad(loss(baselines.separable(x, rows, columns)), x)),
            Candidate("torch.compile", lambda: grad(compiled(x), x)),
        ],
        ours=ours,
        expected={"exact": lambda: exact(interpolate)},
        floor=floor(x, target, f),
    )


def case(shape: tuple[int, ...], entropy: bool, **options: Any) -> Case:
    n, c, h, w, f = shape
    name = f"{'cross-entropy + Dice' if entropy else 'Dice'}, [{n}, {c}, {h}, {w}] x{f}"
    make = partial(build, shape=shape, entropy=entropy)
    return Case(OPERATOR, name, "forward + gradient", make, **options)


CASES = [
    case(shape, entropy, headline=entropy and shape == SHAPES[0], small=entropy and shape == SHAPES[1])
    for shape in SHAPES
    for entropy in (False, True)
]
