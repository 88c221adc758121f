"""The operators as modules, for those who build networks from modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .filters import bilinear_kernel
from .grid import BilinearGrid
from .losses.modules import (
    UpsampleBCEWithLogitsLoss,
    UpsampleDiceCELoss,
    UpsampleDiceLoss,
    UpsampleFocalLoss,
    UpsampleSoftCrossEntropyLoss,
    UpsampleTopKLoss,
    UpsampleTverskyLoss,
)
from .ops.conv_transpose_add import conv_transpose_add
from .ops.cross_entropy import cross_entropy
from .ops.dilated_conv2d import dilated_conv2d
from .ops.upsample_add import upsample_add
from .ops.upsample_argmax import upsample_argmax
from .ops.upsample_cross_entropy import upsample_cross_entropy

__all__ = [
    "ConvTransposeAdd",
    "CrossEntropyLoss",
    "DilatedConv2d",
    "UpsampleAdd",
    "UpsampleArgmax",
    "UpsampleBCEWithLogitsLoss",
    "UpsampleCrossEntropyLoss",
    "UpsampleDiceCELoss",
    "UpsampleDiceLoss",
    "UpsampleFocalLoss",
    "UpsampleSoftCrossEntropyLoss",
    "UpsampleTopKLoss",
    "UpsampleTverskyLoss",
]


class _Sampling:
    """Where a module samples unless its call says it by a grid; what is not the default shows in its description."""

    def __init__(self, **options: Any) -> None:
        self.options = {name: value for name, value in options.items() if value is not None and value is not False}

    def or_grid(self, grid: BilinearGrid | None) -> dict[str, Any]:
        return self.options if grid is None else {"grid": grid}

    def __str__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())


class UpsampleAdd(nn.Module):
    """``upsample_add(x, skip)``: ``x`` upsampled to the size of ``skip``, to ``size`` or by ``scale_factor``, plus
    ``skip``."""

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.sampling = _Sampling(size=size, scale_factor=scale_factor, align_corners=align_corners)

    def forward(self, x: Tensor, skip: Tensor | None = None, *, grid: BilinearGrid | None = None) -> Tensor:
        return upsample_add(x, skip, **self.sampling.or_grid(grid))

    def extra_repr(self) -> str:
        return str(self.sampling)


class ConvTransposeAdd(nn.Module):
    """``conv_transpose_add`` with a filter per channel that starts as bilinear interpolation and is learned."""

    def __init__(self, channels: int, kernel_size: int, stride: int, crop: int = 0) -> None:
        super().__init__()
        self.channels, self.kernel_size, self.stride, self.crop = channels, kernel_size, stride, crop
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(bilinear_kernel(self.kernel_size))

    def forward(self, x: Tensor, skip: Tensor | None = None, *, size: tuple[int, int] | None = None) -> Tensor:
        # Under autocast x is half precision where the filter is not.
        weight = self.weight.to(x.dtype)
        return conv_transpose_add(x, weight, skip, stride=self.stride, crop=self.crop, size=size)

    def extra_repr(self) -> str:
        return f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, crop={self.crop}"


class DilatedConv2d(nn.Module):
    """``dilated_conv2d`` with weights and bias initialized as in ``nn.Conv2d``, whose state dict it shares."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        relu: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.dilation, self.padding, self.relu = dilation, padding, relu
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias)
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return dilated_conv2d(x, self.weight, self.bias, dilation=self.dilation, padding=self.padding, relu=self.relu)

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
            f"padding={self.padding}, bias={self.bias is not None}, relu={self.relu}"
        )


class _Loss(nn.Module):
    """What the two losses keep; see their functions for the meaning."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("ignore_index", "reduction", "label_smoothing")}

    def extra_repr(self) -> str:
        options = {"weight": None if self.weight is None else tuple(self.weight.shape), **self._options()}
        return ", ".join(f"{name}={value!r}" for name, value in options.items())


class CrossEntropyLoss(_Loss):
    """``cross_entropy`` of full-resolution logits ``[N, C, H, W]``."""

    def forward(self, logits: Tensor, target: Tensor, *, pixel_weight: Tensor | None = None) -> Tensor:
        return cross_entropy(logits, target, self.weight, pixel_weight=pixel_weight, **self._options())


class UpsampleCrossEntropyLoss(_Loss):
    """``upsample_cross_entropy`` of coarse scores ``[N, C, h, w]`` and full-resolution labels."""

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        scale_factor: float | tuple[float, float] | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__(weight, ignore_index, reduction, label_smoothing)
        self.sampling = _Sampling(scale_factor=scale_factor, align_corners=align_corners)

    def forward(
        self, x: Tensor, target: Tensor, *, grid: BilinearGrid | None = None, pixel_weight: Tensor | None = None
    ) -> Tensor:
        options = {**self._options(), **self.sampling.or_grid(grid)}
        return upsample_cross_entropy(x, target, self.weight, pixel_weight=pixel_weight, **options)

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (super().extra_repr(), str(self.sampling))))


class UpsampleArgmax(nn.Module):
    """``upsample_argmax``: the label map of coarse scores, and its confidence where that is wanted."""

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        confidence: bool = False,
        dtype: torch.dtype | None = None,
        scale_factor: float | tuple[float, float] | None = None,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.confidence, self.dtype = confidence, dtype
        self.sampling = _Sampling(size=size, scale_factor=scale_factor, align_corners=align_corners)

    def forward(self, x: Tensor, *, grid: BilinearGrid | None = None) -> Tensor | tuple[Tensor, Tensor]:
        return upsample_argmax(x, confidence=self.confidence, dtype=self.dtype, **self.sampling.or_grid(grid))

    def extra_repr(self) -> str:
        return ", ".join(filter(None, (str(self.sampling), f"confidence={self.confidence}, dtype={self.dtype}")))
