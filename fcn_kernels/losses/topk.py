"""Cross-entropy of the hardest pixels."""

from __future__ import annotations

from torch import Tensor

from ..grid import BilinearGrid
from ..ops.upsample_cross_entropy import upsample_cross_entropy


def upsample_topk_cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    k: float = 10.0,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    grid: BilinearGrid | None = None,
    backend: str | None = None,
) -> Tensor:
    """Mean of the largest ``k`` percent of the batch's pixel losses: hard example mining, nnU-Net's ``TopKLoss``.

    Replaces ``losses = upsample_cross_entropy(..., reduction="none"); losses.flatten().topk(count).values.mean()`` with
    ``count = max(1, int(losses.numel() * k / 100))``, and does just that: memory a few times the map ``[N, H, W]`` of
    losses. Pixels that are ignored have the loss 0 and are part of ``losses``, as in nnU-Net.

    Args:
        k: in (0, 100].

    All else as ``upsample_cross_entropy``. An empty batch gives 0.
    """
    if isinstance(k, bool) or not isinstance(k, (float, int)):
        raise TypeError(f"upsample_topk_cross_entropy: k must be a number, got {k!r}")
    if not 0 < k <= 100:
        raise ValueError(f"upsample_topk_cross_entropy: k must lie in (0, 100], got {k}")
    losses = upsample_cross_entropy(
        x,
        target,
        weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction="none",
        grid=grid,
        backend=backend,
    ).flatten()
    if losses.numel() == 0:
        return losses.sum()
    return losses.topk(max(1, int(losses.numel() * k / 100)), sorted=False).values.mean()
