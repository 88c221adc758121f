"""Sums of class probabilities over pixels, straight from coarse scores: what Dice, Jaccard and Tversky losses need."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...autograd import first_order_only, recorded
from ...backend import choose, define_op, implementation
from ...checks import check_scores, output_grid
from ...grid import BilinearGrid
from ...loss import check_ignore_index, check_labels
from .reference import upsample_region_sums as upsample_region_sums_reference


class RegionSums(NamedTuple):
    """Of each image and class, ``[N, C]``: sums over the pixels that count."""

    intersection: Tensor  # of [y = c] p_c
    prediction: Tensor  # of p_c, or of p_c squared
    target: Tensor  # of [y = c]


def upsample_region_sums(
    x: Tensor,
    target: Tensor,
    *,
    grid: BilinearGrid | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    align_corners: bool = False,
    squared: bool = False,
    ignore_index: int = -100,
    backend: str | None = None,
) -> RegionSums:
    """Per image and class, sums over pixels of softmax probabilities of upsampled scores, without the upsampled scores.

    Replaces, with ``p = F.interpolate(x, target.shape[1:], mode="bilinear").softmax(1)`` and ``y`` the labels as
    one-hot maps, ``(p * y).sum((2, 3)), p.sum((2, 3)), y.sum((2, 3))``. Memory: a few times ``x``; backward computes
    the probabilities again.

    Args:
        x: coarse scores ``[N, C, h, w]``, float32, bfloat16, float16 or float64, contiguous or channels_last.
        target: labels ``[N, H, W]``, uint8, int16, int32 or int64.
        grid: where pixels sample ``x``; ``F.interpolate(align_corners=False)`` to the size of ``target`` if None.
        scale_factor, align_corners: those of ``F.interpolate``, where ``grid`` is not given.
        squared: the second sum is that of ``p * p``.
        ignore_index: pixels with this label count nowhere.
        backend: ``"reference"``, ``"cpu"``, ... or None for the default (``use_backend``).

    Returns ``RegionSums(intersection, prediction, target)``, each ``[N, C]``, float32 (float64 for float64 scores).
    Differentiable once, in ``x``; results repeat bit for bit. A label out of range raises ``ValueError`` on a CPU and
    makes the sums of its image NaN on a GPU or the reference. Scores that are not finite: as in
    ``upsample_cross_entropy``.

    Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong.
    """
    check_scores("upsample_region_sums", "x", x)
    backend = choose("upsample_region_sums", backend, x)
    check_labels("upsample_region_sums", target, x)
    check_ignore_index("upsample_region_sums", ignore_index)
    size = (target.shape[1], target.shape[2])
    grid = output_grid("upsample_region_sums", x, grid, size, "target", scale_factor, align_corners)
    if backend == "reference":
        sums = upsample_region_sums_reference(x, target, grid, ignore_index, squared)
    elif recorded(x):
        sums = _RegionSums.apply(x, target, grid.as_ints(), ignore_index, squared, backend)
    else:
        sums = _forward(x, target, grid.as_ints(), ignore_index, squared, backend)
    return RegionSums(*sums.unbind(0))


class _RegionSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, *options: Any) -> Tensor:
        ctx.save_for_backward(x, target)
        ctx.options = options
        return _forward(x, target, *options)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, target = ctx.saved_tensors
        grad_x = _backward(x, target, grad[:2].contiguous(), *ctx.options).to(x.dtype)
        return first_order_only("upsample_region_sums", grad_x, x, grad), None, None, None, None, None


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _run(x: Tensor, target: Tensor, *options: Any) -> Tensor:
    sums = _fake(x, target, *options)
    if target.numel() == 0:
        return sums.zero_()
    *arguments, backend = options
    implementation("upsample_region_sums", backend).upsample_region_sums(x, target, *arguments, sums)
    return sums


def _fake(x: Tensor, target: Tensor, *options: Any) -> Tensor:
    return x.new_empty((3, x.shape[0], x.shape[1]), dtype=_sum_dtype(x))


def _run_backward(x: Tensor, target: Tensor, weights: Tensor, *options: Any) -> Tensor:
    grad = _fake_backward(x, target, weights, *options)
    if target.numel() == 0:
        return grad.zero_()
    *arguments, backend = options
    implementation("upsample_region_sums", backend).upsample_region_sums_backward(x, target, weights, *arguments, grad)
    return grad


def _fake_backward(x: Tensor, target: Tensor, weights: Tensor, *options: Any) -> Tensor:
    return torch.empty_like(x, dtype=_sum_dtype(x))


_OPTIONS = "SymInt[] grid, int ignore_index, bool squared, str backend"
_forward = define_op("upsample_region_sums", f"(Tensor x, Tensor target, {_OPTIONS}) -> Tensor", _run, _fake)
_backward = define_op(
    "upsample_region_sums_backward",
    f"(Tensor x, Tensor target, Tensor weights, {_OPTIONS}) -> Tensor",
    _run_backward,
    _fake_backward,
)
