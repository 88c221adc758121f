"""Coarse scores -> bilinear upsampling -> label map."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import fcn_kernels
from bench import baselines, inputs
from bench.cases import Candidate, Case, Floor, Outputs, Problem, label_error

OPERATOR = "upsample_argmax"
NEEDS = ("upsample_argmax",)

SHAPES = ((2, 21, 64, 64, 8), (1, 21, 16, 16, 32), (1, 150, 64, 64, 8), (2, 19, 64, 128, 8), (4, 11, 45, 60, 8))


def build(device: torch.device, *, shape: tuple[int, ...], kind: str) -> Problem:
    n, c, h, w, f = shape
    size = (h * f, w * f)
    x = (inputs.blob_scores if kind == "blob" else inputs.scores)((n, c, h, w)).to(device)
    x_last = baselines.channels_last(x)
    weight = baselines.bilinear_filter(c, 2 * f, x)
    rows, columns = baselines.interpolation_matrix(h, size[0], x), baselines.interpolation_matrix(w, size[1], x)

    def interpolate_argmax(x: Tensor) -> Tensor:
        return baselines.interpolate(x, size).argmax(1)

    def interpolate_max(x: Tensor) -> Tensor:
        return baselines.interpolate(x, size).max(1).indices

    def depthwise(x: Tensor, weight: Tensor) -> Tensor:
        return baselines.depthwise(x, weight, f, f // 2, size)

    def ours(backend: str) -> Outputs:
        return (fcn_kernels.upsample_argmax(x, size=size, backend=backend),)  # type: ignore[return-value]

    compiled = baselines.compiled(interpolate_argmax)
    pixels = n * size[0] * size[1]
    return Problem(
        baselines=[
            Candidate("interpolate, argmax", lambda: (interpolate_argmax(x),), eager=True),
            Candidate("interpolate, max", lambda: (interpolate_max(x),)),
            Candidate("interpolate, argmax, channels_last", lambda: (interpolate_argmax(x_last),)),
            Candidate("depthwise, max", lambda: (depthwise(x, weight).max(1).indices,), expected="transposed"),
            Candidate("separable matmul, max", lambda: (baselines.separable(x, rows, columns).max(1).indices,)),
            Candidate("torch.compile", lambda: (compiled(x),)),
        ],
        ours=ours,
        expected={
            "exact": lambda: (baselines.interpolate(x.double(), size),),
            "transposed": lambda: (depthwise(x.double(), weight.double()),),
        },
        # Per pixel and class: interpolate, compare, maximum, select. Classes that cannot win may be left out, so a
        # map of large regions can be made faster than this floor.
        floor=Floor(bytes=x.nbytes + pixels, operations=4 * c * pixels),
        error=label_error,
    )


def case(shape: tuple[int, ...], kind: str, **options: Any) -> Case:
    n, c, h, w, f = shape
    name = f"[{n}, {c}, {h}, {w}] x{f}, {kind} scores"
    return Case(OPERATOR, name, "forward", partial(build, shape=shape, kind=kind), **options)


CASES = [case(shape, "random", headline=True, small=shape == SHAPES[0]) for shape in SHAPES]
CASES += [case(shape, "blob", headline=shape == SHAPES[0], small=shape == SHAPES[0], compile=False) for shape in SHAPES]
