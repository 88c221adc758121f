"""The losses as modules; see their functions for the meaning of options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..grid import BilinearGrid
from ..ops.upsample_cross_entropy import upsample_cross_entropy
from .binary import upsample_binary_cross_entropy
from .focal import upsample_focal_loss
from .region import upsample_dice_loss, upsample_tversky_loss
from .soft import upsample_soft_cross_entropy
from .topk import upsample_topk_cross_entropy


class _Loss(nn.Module):
    """Options of a function, and tensors of them as buffers, which move with the module."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._names = tuple(options)
        for name, value in options.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._names}

    def extra_repr(self) -> str:
        shown = {k: tuple(v.shape) if isinstance(v, Tensor) else v for k, v in self._options().items()}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


class UpsampleDiceLoss(_Loss):
    """``upsample_dice_loss`` of coarse scores ``[N, C, h, w]`` and full-resolution labels."""

    def __init__(
        self,
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
    ) -> None:
        super().__init__(
            smooth=smooth,
            squared_pred=squared_pred,
            jaccard=jaccard,
            batch=batch,
            include_background=include_background,
            classes=classes,
            count_absent=count_absent,
            sigmoid=sigmoid,
            ignore_index=ignore_index,
            reduction=reduction,
        )

    def forward(self, x: Tensor, target: Tensor, *, grid: BilinearGrid | None = None) -> Tensor:
        return upsample_dice_loss(x, target, grid=grid, **self._options())


class UpsampleTverskyLoss(_Loss):
    """``upsample_tversky_loss`` of coarse scores ``[N, C, h, w]`` and full-resolution labels."""

    def __init__(
        self,
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
    ) -> None:
        super().__init__(
            alpha=alpha,
            beta=beta,
            smooth=smooth,
            batch=batch,
            include_background=include_background,
            classes=classes,
            count_absent=count_absent,
            sigmoid=sigmoid,
            ignore_index=ignore_index,
            reduction=reduction,
        )

    def forward(self, x: Tensor, target: Tensor, *, grid: BilinearGrid | None = None) -> Tensor:
        return upsample_tversky_loss(x, target, grid=grid, **self._options())


class UpsampleDiceCELoss(nn.Module):
    """``lambda_dice`` times ``UpsampleDiceLoss`` plus ``lambda_ce`` times cross-entropy, as in MONAI.

    ``weight``: of each class, ``[C]``, for the cross-entropy. Other options are those of ``UpsampleDiceLoss``, of which
    ``ignore_index`` and ``reduction`` (``"mean"`` or ``"sum"``) hold for both. For softmaxes: no ``sigmoid``.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        if options.get("sigmoid"):
            raise ValueError("UpsampleDiceCELoss: for softmaxes; with sigmoid=True add upsample_binary_cross_entropy")
        if options.get("reduction") == "none":
            raise ValueError("UpsampleDiceCELoss: reduction must be one of sum, mean, got 'none'")
        self.register_buffer("weight", weight)
        self.dice = UpsampleDiceLoss(**options)
        self.shared: dict[str, Any] = {name: getattr(self.dice, name) for name in ("ignore_index", "reduction")}
        self.lambda_dice, self.lambda_ce, self.label_smoothing = lambda_dice, lambda_ce, label_smoothing

    def forward(self, x: Tensor, target: Tensor, *, grid: BilinearGrid | None = None) -> Tensor:
        entropy = upsample_cross_entropy(
            x, target, self.weight, grid=grid, label_smoothing=self.label_smoothing, **self.shared
        )
        loss: Tensor = self.lambda_dice * self.dice(x, target, grid=grid) + self.lambda_ce * entropy
        return loss

    def extra_repr(self) -> str:
        return f"lambda_dice={self.lambda_dice}, lambda_ce={self.lambda_ce}, label_smoothing={self.label_smoothing}"


class UpsampleFocalLoss(_Loss):
    """``upsample_focal_loss`` of coarse scores ``[N, C, h, w]`` and full-resolution labels."""

    def __init__(
        self,
        alpha: Tensor | None = None,
        gamma: float = 2.0,
        sigmoid: bool = False,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(alpha=alpha, gamma=gamma, sigmoid=sigmoid, ignore_index=ignore_index, reduction=reduction)

    def forward(self, x: Tensor, target: Tensor, *, grid: BilinearGrid | None = None) -> Tensor:
        return upsample_focal_loss(x, target, grid=grid, **self._options())


class UpsampleBCEWithLogitsLoss(_Loss):
    """``upsample_binary_cross_entropy`` of coarse scores ``[N, C, h, w]`` and full-resolution targets of 0 and 1."""

    def __init__(self, pos_weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(pos_weight=pos_weight, ignore_index=ignore_index, reduction=reduction)

    def forward(self, x: Tensor, target: Tensor, *, grid: BilinearGrid | None = None) -> Tensor:
        return upsample_binary_cross_entropy(x, target, grid=grid, **self._options())


class UpsampleSoftCrossEntropyLoss(_Loss):
    """``upsample_soft_cross_entropy`` of coarse scores ``[N, C, h, w]`` and probabilities."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)

    def forward(
        self,
        x: Tensor,
        target: Tensor,
        *,
        target_grid: BilinearGrid | None = None,
        grid: BilinearGrid | None = None,
    ) -> Tensor:
        return upsample_soft_cross_entropy(x, target, target_grid=target_grid, grid=grid, **self._options())


class UpsampleTopKLoss(_Loss):
    """``upsample_topk_cross_entropy`` of coarse scores ``[N, C, h, w]`` and full-resolution labels."""

    def __init__(
        self,
        weight: Tensor | None = None,
        k: float = 10.0,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, k=k, ignore_index=ignore_index, label_smoothing=label_smoothing)

    def forward(self, x: Tensor, target: Tensor, *, grid: BilinearGrid | None = None) -> Tensor:
        return upsample_topk_cross_entropy(x, target, grid=grid, **self._options())
