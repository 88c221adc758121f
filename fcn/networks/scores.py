"""What a network gives: coarse scores, and where each image pixel samples them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Literal, overload

from torch import Tensor

from fcn_kernels import BilinearGrid, CoordMap, cross_entropy, upsample_add, upsample_argmax, upsample_cross_entropy


@dataclass(frozen=True)
class Scores:
    """Scores of a batch of images, kept at the network's own resolution.

    The loss and the labels are computed from ``coarse`` and ``grid``; the ``[N, C, H, W]`` scores of every pixel exist
    only if ``logits`` is called. (Networks with a learned last upsampling make them: there ``coarse`` has full size.)
    """

    coarse: Tensor
    """``[N, C, h, w]``."""
    grid: BilinearGrid
    """Where pixel ``(y, x)`` of the ``[H, W]`` image samples ``coarse``."""

    def __repr__(self) -> str:
        return f"Scores({list(self.coarse.shape)} for images of {self.grid.size[0]} x {self.grid.size[1]})"

    def at(self, size: tuple[int, int]) -> Scores:
        """Of images that the network saw reduced: where pixel ``(y, x)`` of the ``[H, W]`` original samples ``coarse``.

        Pixels are squares, and images cover the same area: as ``F.interpolate``.
        """
        if size == self.grid.size:
            return self

        def onto(axis: int) -> CoordMap:
            have, wanted = self.grid.size[axis], size[axis]
            seen = CoordMap(Fraction(have, wanted), Fraction(have - wanted, 2 * wanted))
            return CoordMap(self.grid.scale[axis], self.grid.shift[axis]).then(seen)

        return Scores(self.coarse, BilinearGrid.from_maps(size, onto(0), onto(1), self.grid.border))

    def loss(
        self,
        target: Tensor,
        weight: Tensor | None = None,
        *,
        pixel_weight: Tensor | None = None,
        ignore_index: int = 255,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """Cross-entropy of the pixels against ``target`` ``[N, H, W]``, as ``F.cross_entropy``; 255 is void."""
        # Where nothing is upsampled a cell has one pixel, and would take a workspace of its own.
        dense = self.grid.size == self.coarse.shape[2:] and self.grid.is_identity
        loss = cross_entropy if dense else partial(upsample_cross_entropy, grid=self.grid)
        return loss(
            self.coarse,
            target,
            weight,
            pixel_weight=pixel_weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )

    @overload
    def labels(self, *, confidence: Literal[False] = False) -> Tensor: ...

    @overload
    def labels(self, *, confidence: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def labels(self, *, confidence: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Most likely class of each pixel ``[N, H, W]``, uint8 (int64 above 256 classes).

        With ``confidence``, ``(labels, probability)``: the softmax probability of that class too.
        """
        return upsample_argmax(self.coarse, grid=self.grid, confidence=confidence)

    def logits(self) -> Tensor:
        """The scores of every pixel ``[N, C, H, W]``."""
        return upsample_add(self.coarse, grid=self.grid)
