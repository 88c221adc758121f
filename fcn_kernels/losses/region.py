"""Losses of overlap: Dice, Jaccard and Tversky, of the sums that ``upsample_region_sums`` makes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..grid import BilinearGrid, is_whole
from ..ops.upsample_region_sums import RegionSums, upsample_region_sums
from .checks import check_at_least_zero, check_reduction
from .two_classes import check_binary, two_classes


def upsample_dice_loss(
    x: Tensor,
    target: Tensor,
    *,
    smooth: float = 1e-5,
    squared_pred: bool = False,
    jaccard: bool = False,
    batch: bool = False,
    include_background: bool = True,
    classes: Sequence[int] | None = None,
    count_absent: bool = True,
    sigmoid: bool = False,
    ignore_index: int = -100,
    reduction: str = "mean",
    grid: BilinearGrid | None = None,
    backend: str | None = None,
) -> Tensor:
    """Soft Dice loss of upsampled scores, without the upsampled scores.

    Replaces, with ``p = F.interpolate(x, target.shape[1:], mode="bilinear").softmax(1)`` and ``y`` the labels as
    one-hot maps, ``(1 - (2 * (p * y).sum((2, 3)) + smooth) / (p.sum((2, 3)) + y.sum((2, 3)) + smooth)).mean()``:
    MONAI's ``DiceLoss`` with ``smooth_nr = smooth_dr``; with ``batch=True, count_absent=False`` that of
    segmentation_models.pytorch.

    Args:
        x: coarse scores ``[N, C, h, w]``, as for ``upsample_cross_entropy``.
        target: labels ``[N, H, W]``, uint8, int16, int32 or int64.
        smooth: added to numerator and denominator, which is at least 1e-7.
        squared_pred: the denominator has ``p * p`` instead of ``p``.
        jaccard: the denominator is twice the union: the Jaccard index (soft IoU), as in MONAI.
        batch: sums are those of the batch, not of each image.
        include_background: whether class 0 counts (with ``sigmoid`` as well, where it is not a background).
        classes: those that count, all if None.
        count_absent: False makes the loss of a class 0 where no pixel of the image (or batch) has it.
        sigmoid: each class by itself, ``p = sigmoid``; ``target`` then holds 0 and 1, ``[N, C, H, W]``, or
            ``[N, H, W]`` where C = 1; bool as well.
        ignore_index: pixels with this label count nowhere.
        reduction: ``"mean"`` and ``"sum"`` over images and classes; ``"none"``: ``[N, C]``, ``[C]`` with ``batch``.
        grid: where pixels sample ``x``; ``F.interpolate(align_corners=False)`` to the size of ``target`` if None.
        backend: as for ``upsample_region_sums``.

    Returns the loss in float32 (float64 for float64 scores); gradient and errors as of ``upsample_region_sums``.
    """
    name = "upsample_dice_loss"
    check_at_least_zero(name, "smooth", smooth)
    check_reduction(name, reduction)
    sums = _sums(name, x, target, squared_pred, batch, sigmoid, ignore_index, grid, backend)
    intersection, prediction, labels = chosen = _chosen(name, sums, include_background, classes)
    union = prediction + labels
    if jaccard:
        union = 2 * (union - intersection)
    return _reduced(2 * intersection, union, chosen, smooth, count_absent, reduction)


def upsample_tversky_loss(
    x: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1e-5,
    batch: bool = False,
    include_background: bool = True,
    classes: Sequence[int] | None = None,
    count_absent: bool = True,
    sigmoid: bool = False,
    ignore_index: int = -100,
    reduction: str = "mean",
    grid: BilinearGrid | None = None,
    backend: str | None = None,
) -> Tensor:
    """Tversky loss of upsampled scores: ``1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)``.

    ``tp`` is the sum of ``p * y``, ``fp`` that of ``p * (1 - y)``, ``fn`` that of ``(1 - p) * y``: ``TverskyLoss`` of
    MONAI and of segmentation_models.pytorch. ``alpha = beta = 0.5`` is Dice, ``alpha = beta = 1`` Jaccard. All else as
    ``upsample_dice_loss``.
    """
    name = "upsample_tversky_loss"
    for argument, value in (("alpha", alpha), ("beta", beta), ("smooth", smooth)):
        check_at_least_zero(name, argument, value)
    check_reduction(name, reduction)
    sums = _sums(name, x, target, False, batch, sigmoid, ignore_index, grid, backend)
    intersection, prediction, labels = chosen = _chosen(name, sums, include_background, classes)
    union = intersection + alpha * (prediction - intersection) + beta * (labels - intersection)
    return _reduced(intersection, union, chosen, smooth, count_absent, reduction)


def _sums(
    operator: str,
    x: Tensor,
    target: Tensor,
    squared: bool,
    batch: bool,
    sigmoid: bool,
    ignore_index: int,
    grid: BilinearGrid | None,
    backend: str | None,
) -> RegionSums:
    """``[N, C]`` each, or ``[C]``."""
    pixels = (x, target)
    if sigmoid:
        check_binary(operator, x, target)
        pixels = two_classes(x, target)
    sums = upsample_region_sums(*pixels, grid=grid, squared=squared, ignore_index=ignore_index, backend=backend)
    if sigmoid:  # of the second class, which is the one meant
        sums = RegionSums(*(part[:, 1].view(x.shape[:2]) for part in sums))
    return RegionSums(*(part.sum(0) for part in sums)) if batch else sums


def _chosen(operator: str, sums: RegionSums, include_background: bool, classes: Sequence[int] | None) -> RegionSums:
    count = sums.target.shape[-1]
    if classes is None:
        if include_background:
            return sums
        if count == 1:
            raise ValueError(f"{operator}: there is one class, and include_background=False leaves it out")
        return RegionSums(*(part[..., 1:] for part in sums))
    if not include_background:
        raise ValueError(f"{operator}: classes says which count; leave include_background at True")
    if not classes or not all(is_whole(c) and 0 <= c < count for c in classes):
        raise ValueError(f"{operator}: classes must be some of 0 ... {count - 1}, got {classes!r}")
    return RegionSums(*(part[..., list(classes)] for part in sums))


def _reduced(
    overlap: Tensor, union: Tensor, sums: RegionSums, smooth: float, count_absent: bool, reduction: str
) -> Tensor:
    loss = 1 - (overlap + smooth) / (union + smooth).clamp_min(1e-7)
    if not count_absent:
        loss = torch.where(sums.target > 0, loss, 0)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean()
