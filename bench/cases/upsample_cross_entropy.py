"""Coarse scores -> bilinear upsampling -> softmax cross-entropy."""

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

OPERATOR = "upsample_cross_entropy"
NEEDS = ("upsample_cross_entropy",)

SHAPES = ((2, 21, 64, 64, 8), (1, 21, 16, 16, 32), (1, 150, 64, 64, 8), (2, 19, 64, 128, 8), (4, 11, 45, 60, 8))
IMAGE_SIZES = (128, 256, 384, 512, 768, 1024)


def floor(x: Tensor, target: Tensor, stride: int, gradient: bool) -> Floor:
    """Inside a cell the exponential of a bilinear score is a geometric progression: 4 exps per cell and class.

    Per pixel and class 2 multiply-adds for the sum and 2 for the gradient (Horner with derivative).
    """
    cells = target.numel() / stride**2
    read = x.nbytes + target.nbytes
    return Floor(
        bytes=read + (x.nbytes if gradient else 0),
        operations=target.numel() * x.shape[1] * (4 if gradient else 2),
        exps=int(4 * cells * x.shape[1]),
    )


def build(device: torch.device, *, shape: tuple[int, ...], labels: str, gradient: bool) -> Problem:
    n, c, h, w, f = shape
    size = (h * f, w * f)
    x = inputs.scores((n, c, h, w)).to(device).requires_grad_(gradient)
    target = (inputs.random_labels if labels == "random int64" else inputs.voronoi_labels)((n, *size), c).to(device)
    if labels == "uint8":
        target = target.to(torch.uint8)
    x_last = baselines.channels_last(x)
    weight = baselines.bilinear_filter(c, 2 * f, x)
    rows, columns = baselines.interpolation_matrix(h, size[0], x), baselines.interpolation_matrix(w, size[1], x)

    def entropy(logits: Tensor) -> Tensor:
        # F.cross_entropy takes int64 labels only (long() of those is free).
        return F.cross_entropy(logits, target.long(), ignore_index=inputs.IGNORE_INDEX)

    def interpolate(x: Tensor) -> Tensor:
        return entropy(baselines.interpolate(x, size))

    def depthwise(x: Tensor, weight: Tensor) -> Tensor:
        return entropy(baselines.depthwise(x, weight, f, f // 2, size))

    def ours(backend: str) -> Outputs:
        loss = fcn_kernels.upsample_cross_entropy(x, target, ignore_index=inputs.IGNORE_INDEX, backend=backend)
        return baselines.with_gradient(loss, x)

    def exact(function: Callable[..., Tensor], *arguments: Tensor) -> Outputs:
        x64 = x.detach().double().requires_grad_(gradient)
        return baselines.with_gradient(function(x64, *arguments), x64)

    compiled = baselines.compiled(interpolate)
    grad = baselines.with_gradient
    return Problem(
        baselines=[
            Candidate("interpolate", lambda: grad(interpolate(x), x), eager=True),
            Candidate("interpolate, channels_last", lambda: grad(interpolate(x_last), x_last)),
            Candidate("depthwise conv_transpose2d", lambda: grad(depthwise(x, weight), x), expected="transposed"),
            Candidate("separable matmul", lambda: grad(entropy(baselines.separable(x, rows, columns)), x)),
            Candidate("torch.compile", lambda: grad(compiled(x), x)),
        ],
        ours=ours,
        expected={"exact": lambda: exact(interpolate), "transposed": lambda: exact(depthwise, weight.double())},
        floor=floor(x, target, f, gradient),
    )


def case(shape: tuple[int, ...], labels: str, gradient: bool, **options: Any) -> Case:
    n, c, h, w, f = shape
    mode = "forward + gradient" if gradient else "forward"
    make = partial(build, shape=shape, labels=labels, gradient=gradient)
    return Case(OPERATOR, f"[{n}, {c}, {h}, {w}] x{f}, {labels} labels", mode, make, **options)


CASES = [
    case(shape, "int64", gradient, headline=True, small=shape == SHAPES[0])
    for shape in SHAPES
    for gradient in (False, True)
]
CASES += [
    case(SHAPES[0], labels, gradient, compile=False)
    for labels in ("random int64", "uint8")
    for gradient in (False, True)
]
CASES += [case((1, 21, size // 8, size // 8, 8), "int64", True, image_size=size, compile=False) for size in IMAGE_SIZES]
