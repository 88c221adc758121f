"""What a call of a loss carries: its arguments, spelled out once for all losses, passes and backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .backend import define_op
from .checks import check_same, names_of
from .grid import is_whole

TARGET_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)
REDUCTIONS = ("none", "sum", "mean")


def check_labels(operator: str, target: Tensor, x: Tensor) -> None:
    """``target`` holds labels of the images of ``x``; its height and width are for the operator to compare."""
    check_same(operator, "target", target, "the scores", x, dtype=False)
    if target.dtype not in TARGET_DTYPES:
        raise TypeError(f"{operator}: target must be one of {names_of(TARGET_DTYPES)}, got {target.dtype}")
    if target.dim() != 3 or target.shape[0] != x.shape[0]:
        raise ValueError(f"{operator}: target must be [N, H, W] with N = {x.shape[0]}, got shape {tuple(target.shape)}")


def check_ignore_index(operator: str, ignore_index: int) -> None:
    if not is_whole(ignore_index):
        raise TypeError(f"{operator}: ignore_index must be a whole number, got {ignore_index!r}")


class LossCall(NamedTuple):
    """A tuple, because dispatcher ops and ``autograd.Function`` take arguments one by one: ``op(*call)`` packs it and
    ``LossCall(*arguments)`` unpacks it. What only one loss has (a grid) goes before.
    """

    scores: Tensor  # [N, C, h, w]
    target: Tensor  # [N, H, W]
    weight: Tensor | None  # [C]
    pixel_weight: Tensor | None  # [N, H, W]
    ignore_index: int
    reduction: str
    label_smoothing: float
    backend: str

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """What backward saves, and keeps beside it as ``ctx.options``; see ``restored``."""
        return self[:4]

    @property
    def options(self) -> tuple[int, str, float, str]:
        return self[4:]

    @property
    def kernel_options(self) -> tuple[int, bool, float]:
        """``options`` as the compiled kernels take them."""
        return self.ignore_index, self.reduction == "mean", self.label_smoothing

    @classmethod
    def restored(cls, ctx: Any) -> tuple[LossCall, list[Tensor]]:
        """In backward: the call of forward, and what was saved behind its tensors."""
        tensors = ctx.saved_tensors
        return cls(*tensors[:4], *ctx.options), list(tensors[4:])

    def weighed_sum(self, factor: Tensor) -> LossCall:
        """The sum over pixels, each times ``factor``."""
        weighed = factor if self.pixel_weight is None else factor * self.pixel_weight
        return self._replace(pixel_weight=weighed, reduction="sum")

    @property
    def sum_dtype(self) -> torch.dtype:
        """That of losses, of weights in kernels, and of sums."""
        return torch.float64 if self.scores.dtype == torch.float64 else torch.float32

    def weights(self) -> tuple[Tensor | None, Tensor | None]:
        """Class weights, contiguous, and pixel weights, as kernels take them: in the dtype of sums."""
        weight, pixel_weight = self.weight, self.pixel_weight
        return (
            None if weight is None else weight.detach().to(self.sum_dtype).contiguous(),
            None if pixel_weight is None else pixel_weight.detach().to(self.sum_dtype),
        )

    def check(self, operator: str) -> None:
        """All but the scores and the backend; ``target``'s height and width are for the operator to compare."""
        x, target = self.scores, self.target
        check_labels(operator, target, x)
        if self.weight is not None:
            check_same(operator, "weight", self.weight, "the scores", x, dtype=False)
            if self.weight.shape != (x.shape[1],):
                raise ValueError(
                    f"{operator}: weight must have shape [{x.shape[1]}], one per class, got {tuple(self.weight.shape)}"
                )
            self._check_weight(operator, "weight", self.weight)
        if self.pixel_weight is not None:
            check_same(operator, "pixel_weight", self.pixel_weight, "the scores", x, dtype=False)
            if self.pixel_weight.shape != target.shape:
                raise ValueError(
                    f"{operator}: pixel_weight must have the shape of target, {tuple(target.shape)}, "
                    f"got {tuple(self.pixel_weight.shape)}"
                )
            self._check_weight(operator, "pixel_weight", self.pixel_weight)
        check_ignore_index(operator, self.ignore_index)
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"{operator}: reduction must be one of {', '.join(REDUCTIONS)}, got {self.reduction!r}")
        if not isinstance(self.label_smoothing, (float, int)):
            raise TypeError(f"{operator}: label_smoothing must be a number, got {self.label_smoothing!r}")
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"{operator}: label_smoothing must lie in [0, 1], got {self.label_smoothing}")

    @staticmethod
    def _check_weight(operator: str, argument: str, weight: Tensor) -> None:
        if not weight.dtype.is_floating_point:
            raise TypeError(f"{operator}: {argument} must be floating point, got {weight.dtype}")
        if weight.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{operator}: {argument} requires a gradient, and has none here; give {argument}.detach()")


# The fields of ``LossCall`` as a dispatcher op takes them.
_SCHEMA = (
    "Tensor scores, Tensor target, Tensor? weight, Tensor? pixel_weight, int ignore_index, str reduction, "
    "float label_smoothing, str backend"
)


def define_loss_op(name: str, own: str, returns: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """``define_op`` of what only this op takes (``own``, a schema) and then the fields of a call, which reach ``run``
    and ``fake`` as one."""

    def with_call(function: Callable[..., Any]) -> Callable[..., Any]:
        fields = -len(LossCall._fields)
        # tuple's own constructor takes half the time, of each call.
        return lambda *arguments: function(*arguments[:fields], tuple.__new__(LossCall, arguments[fields:]))

    return define_op(name, f"({own}, {_SCHEMA}) -> {returns}", with_call(run), with_call(fake))


# What ``autograd.Function`` wants of a backward for all of a call but the scores.
NO_OTHER_GRADIENTS = (None,) * (len(LossCall._fields) - 1)
