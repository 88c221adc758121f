"""Losses made of upsample_cross_entropy: focal, top-k, binary, soft targets; loss and gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import fcn_kernels
from bench import baselines, inputs
from bench.cases import Candidate, Case, Floor, Outputs, Problem

OPERATOR = "losses"
NEEDS = ("upsample_focal_loss",)

N, C, H, W, FACTOR = 2, 21, 64, 64, 8
SIZE = (H * FACTOR, W * FACTOR)

Loss = Callable[[Tensor], Tensor]


def focal(device: torch.device) -> tuple[Loss, Callable[[Tensor, str], Tensor], int]:
    target = inputs.voronoi_labels((N, *SIZE), C).to(device)
    ignore = inputs.IGNORE_INDEX

    def plain(logits: Tensor) -> Tensor:
        loss = F.cross_entropy(logits, target, ignore_index=ignore, reduction="none")
        return ((1 - torch.exp(-loss)) ** 2 * loss).sum() / (target != ignore).sum()

    return plain, lambda x, b: fcn_kernels.upsample_focal_loss(x, target, ignore_index=ignore, backend=b), C


def topk(device: torch.device) -> tuple[Loss, Callable[[Tensor, str], Tensor], int]:
    target = inputs.voronoi_labels((N, *SIZE), C).to(device)
    ignore = inputs.IGNORE_INDEX

    def plain(logits: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, target, ignore_index=ignore, reduction="none").flatten()
        return losses.topk(losses.numel() // 10, sorted=False).values.mean()

    return plain, lambda x, b: fcn_kernels.upsample_topk_cross_entropy(x, target, ignore_index=ignore, backend=b), C


def binary(device: torch.device, classes: int) -> tuple[Loss, Callable[[Tensor, str], Tensor], int]:
    regions = inputs.voronoi_labels((N * classes, *SIZE), 2).to(device).clamp(max=1).view(N, classes, *SIZE)
    target, wide = regions.to(torch.uint8), regions.float()
    return (
        lambda logits: F.binary_cross_entropy_with_logits(logits, wide.to(logits.dtype)),
        lambda x, b: fcn_kernels.upsample_binary_cross_entropy(x, target, backend=b),
        classes,
    )


def soft(device: torch.device, coarse: bool) -> tuple[Loss, Callable[[Tensor, str], Tensor], int]:
    probabilities = (inputs.scores((N, C, H, W)) + 1).softmax(1).to(device)
    full = baselines.interpolate(probabilities, SIZE)
    grid = fcn_kernels.BilinearGrid.interpolate((H, W), SIZE) if coarse else None
    given = probabilities if coarse else full

    def plain(logits: Tensor) -> Tensor:
        q = baselines.interpolate(probabilities.to(logits.dtype), SIZE) if coarse else full.to(logits.dtype)
        return F.cross_entropy(logits, q)

    return plain, lambda x, b: fcn_kernels.upsample_soft_cross_entropy(x, given, target_grid=grid, backend=b), C


KINDS: dict[str, Callable[[torch.device], tuple[Loss, Callable[[Tensor, str], Tensor], int]]] = {
    "focal": focal,
    "top 10 %": topk,
    "binary": partial(binary, classes=1),
    "multi-label": partial(binary, classes=C),
    "soft targets": partial(soft, coarse=False),
    "coarse soft targets": partial(soft, coarse=True),
}


def build(device: torch.device, *, kind: str) -> Problem:
    plain, own, classes = KINDS[kind](device)
    x = inputs.scores((N, classes, H, W)).to(device).requires_grad_()
    pixels = N * SIZE[0] * SIZE[1]

    def interpolate(x: Tensor) -> Outputs:
        return baselines.with_gradient(plain(baselines.interpolate(x, SIZE)), x)

    compiled = baselines.compiled(lambda x: plain(baselines.interpolate(x, SIZE)))
    x_last = baselines.channels_last(x)
    return Problem(
        baselines=[
            Candidate("interpolate", lambda: interpolate(x), eager=True),
            Candidate("interpolate, channels_last", lambda: interpolate(x_last)),
            Candidate("torch.compile", lambda: baselines.with_gradient(compiled(x), x)),
        ],
        ours=lambda backend: baselines.with_gradient(own(x, backend), x),
        expected={"exact": lambda: interpolate(x.detach().double().requires_grad_())},
        # As of cross-entropy, whose pixels cost the same whatever their weights.
        floor=Floor(
            bytes=2 * x.nbytes + pixels,
            operations=4 * pixels * classes,
            exps=4 * N * H * W * classes,
        ),
    )


CASES = [
    Case(OPERATOR, f"{kind}, [{N}, {1 if kind == 'binary' else C}, {H}, {W}] x{FACTOR}", "forward + gradient",
         partial(build, kind=kind), small=kind == "binary")
    for kind in KINDS
]  # fmt: skip
