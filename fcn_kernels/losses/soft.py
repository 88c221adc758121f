"""Cross-entropy with probabilities as targets."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import choose
from ..checks import check_same, check_scores, output_grid
from ..grid import BilinearGrid
from ..layout import layout_of
from ..ops.upsample_add.reference import interpolate, taps, upsample
from ..ops.upsample_cross_entropy import upsample_cross_entropy
from .checks import check_reduction


def upsample_soft_cross_entropy(
    x: Tensor,
    target: Tensor,
    *,
    target_grid: BilinearGrid | None = None,
    reduction: str = "mean",
    grid: BilinearGrid | None = None,
    backend: str | None = None,
) -> Tensor:
    """Cross-entropy of upsampled scores with a probability of every class as target, without the upsampled scores.

    Replaces ``F.cross_entropy(F.interpolate(x, size, mode="bilinear"), q)`` where ``q``, ``[N, C, H, W]``, is
    ``target`` itself or, with ``target_grid``, upsampled from coarse probabilities (distillation), which then exist at
    no other resolution. The loss is linear in ``q``, so that its part is a product of coarse maps; the rest is
    ``upsample_cross_entropy``.

    Args:
        x: coarse scores ``[N, C, h, w]``, as for ``upsample_cross_entropy``; finite.
        target: probabilities, floating point: ``[N, C, H, W]``, or with ``target_grid`` ``[N, C, h', w']``. Where they
            are all 0 a pixel costs nothing; they need not add up to 1.
        target_grid: where pixels sample ``target``.
        reduction: ``"mean"`` divides by N x H x W, as ``F.cross_entropy`` does; ``"sum"``.
        grid: where pixels sample ``x``; ``F.interpolate(align_corners=False)`` to the size of ``target`` if None.
        backend: as for ``upsample_cross_entropy``.

    Returns the loss in float32 (float64 for float64 scores), 0 for an empty batch. Differentiable once, in ``x``;
    ``target`` has no gradient here, and is refused where it requires one.

    Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong.
    """
    name = "upsample_soft_cross_entropy"
    check_scores(name, "x", x)
    _check_target(name, x, target)
    check_reduction(name, reduction)
    if reduction == "none":
        raise ValueError(f"{name}: reduction must be one of sum, mean, got 'none'")
    if target_grid is not None:
        target_grid = output_grid(name, target, target_grid, None, "target")
    size = (target.shape[2], target.shape[3]) if target_grid is None else target_grid.size
    grid = output_grid(name, x, grid, size, "target")
    backend = choose(name, backend, x)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    q = target.detach().to(dtype)
    if backend == "reference":
        full = q if target_grid is None else upsample(q, target_grid)
        loss = -(full * upsample(x, grid).log_softmax(1)).sum()
    else:
        loss = _loss(x, q, target_grid, grid, backend)
    pixels = x.shape[0] * size[0] * size[1]
    return loss / max(1, pixels) if reduction == "mean" else loss


def _check_target(operator: str, x: Tensor, target: Tensor) -> None:
    check_same(operator, "target", target, "the scores", x, dtype=False)
    if not target.dtype.is_floating_point:
        raise TypeError(f"{operator}: target must be floating point, got {target.dtype}")
    if target.dim() != 4 or target.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"{operator}: target must be [N, C, H, W] with N, C = {tuple(x.shape[:2])}, got {tuple(target.shape)}"
        )
    if target.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{operator}: target requires a gradient, and has none here; give target.detach()")


def _loss(x: Tensor, q: Tensor, target_grid: BilinearGrid | None, grid: BilinearGrid, backend: str) -> Tensor:
    """With ``q`` the targets of a pixel, ``w`` their sum over classes and ``a`` any class: ``w * lse(z) - <q, z>`` is
    ``w`` times the cross-entropy of the label ``a``, plus ``w * z_a - <q, z>``. The latter is linear in upsampled
    scores, so its sum is one over coarse scores, with what the adjoint of upsampling makes of ``q`` and ``w``.
    """
    classes, h, w = x.shape[1:]
    # Relative to a pixel's largest class, which changes nothing, and of a class that mostly leads, terms are small.
    z = x.to(q.dtype) - x.detach().amax(1, keepdim=True).to(q.dtype)
    leading = z.detach().sum((2, 3)).argmax(1)
    if target_grid is None:
        weight = q.sum(1)
        gathered = torch.ops.fcn_kernels.upsample_add_backward(q, [h, w], grid.as_ints(), layout_of(q), backend)
    else:
        weight = upsample(q.sum(1, keepdim=True), target_grid)[:, 0]
        rows, columns = (_gathering(grid, target_grid, axis, z, q) for axis in (0, 1))
        gathered = rows @ q @ columns.T
    label = leading[:, None, None].expand(weight.shape)
    loss = upsample_cross_entropy(z, label, grid=grid, pixel_weight=weight, reduction="sum", backend=backend)
    own = torch.arange(classes, device=x.device) == leading[:, None]
    linear = torch.where(own[:, :, None, None], gathered.sum(1, keepdim=True), 0) - gathered
    total: Tensor = loss + (z * linear).sum()
    return total


def _gathering(grid: BilinearGrid, target_grid: BilinearGrid, axis: int, z: Tensor, q: Tensor) -> Tensor:
    """``[h, h']`` along an axis: coarse targets to pixels, and these summed up where the scores' grid samples them."""
    to_pixels = []
    for sampling, coarse in ((grid, z), (target_grid, q)):
        size = coarse.shape[2 + axis]
        pixels = taps(sampling, axis, size, torch.float64, z.device)
        to_pixels.append(interpolate(torch.eye(size, dtype=torch.float64, device=z.device), 0, pixels))
    return (to_pixels[0].T @ to_pixels[1]).to(q.dtype)
