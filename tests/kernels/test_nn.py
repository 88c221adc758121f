"""The modules do what the functions do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fcn_kernels as k
from fcn_kernels import BilinearGrid
from fcn_kernels.nn import (
    ConvTransposeAdd,
    CrossEntropyLoss,
    DilatedConv2d,
    UpsampleAdd,
    UpsampleArgmax,
    UpsampleCrossEntropyLoss,
)

X, SKIP, TARGET = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 8, 10), torch.randint(0, 3, (2, 8, 10))


def test_upsample_add() -> None:
    grid = BilinearGrid.transposed(2, 1, (8, 10))
    assert torch.equal(UpsampleAdd()(X, SKIP), k.upsample_add(X, SKIP))
    assert torch.equal(UpsampleAdd((8, 10))(X), k.upsample_add(X, size=(8, 10)))
    assert torch.equal(UpsampleAdd()(X, SKIP, grid=grid), k.upsample_add(X, SKIP, grid=grid))


def test_conv_transpose_add_starts_bilinear_and_learns() -> None:
    module = ConvTransposeAdd(3, kernel_size=4, stride=2, crop=1)
    grid = BilinearGrid.transposed(2, 1, (8, 10))
    torch.testing.assert_close(module(X, SKIP), k.upsample_add(X, SKIP, grid=grid))
    torch.testing.assert_close(module(X, size=(8, 10)), k.upsample_add(X, grid=grid))
    module(X, SKIP).square().sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.abs().min() > 0


def test_conv_transpose_add_under_autocast() -> None:
    module = ConvTransposeAdd(3, kernel_size=4, stride=2)
    out = module(X.bfloat16())
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("bias", [False, True])
def test_dilated_conv2d_shares_the_state_of_conv2d(bias: bool) -> None:
    module, conv = DilatedConv2d(3, 4, 3, 2, 2, bias, relu=True), nn.Conv2d(3, 4, 3, dilation=2, padding=2, bias=bias)
    conv.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(SKIP), conv(SKIP).relu())


def test_dilated_conv2d_is_initialized_as_conv2d() -> None:
    torch.manual_seed(5)
    module = DilatedConv2d(3, 4, 3)
    torch.manual_seed(5)
    conv = nn.Conv2d(3, 4, 3)
    assert torch.equal(module.weight, conv.weight)
    assert torch.equal(module.bias, conv.bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [None, torch.rand(3)])
def test_losses(weight: Tensor | None) -> None:
    options = {"ignore_index": 2, "reduction": "sum", "label_smoothing": 0.1}
    pixel_weight = torch.rand(2, 8, 10)
    got = CrossEntropyLoss(weight, **options)(SKIP, TARGET, pixel_weight=pixel_weight)  # type: ignore[arg-type]
    assert torch.equal(got, k.cross_entropy(SKIP, TARGET, weight, pixel_weight=pixel_weight, **options))  # type: ignore[arg-type]
    grid = BilinearGrid.transposed(2, 1, (8, 10))
    module = UpsampleCrossEntropyLoss(weight, **options)  # type: ignore[arg-type]
    got = module(X, TARGET, grid=grid, pixel_weight=pixel_weight)
    want = k.upsample_cross_entropy(X, TARGET, weight, grid=grid, pixel_weight=pixel_weight, **options)  # type: ignore[arg-type]
    assert torch.equal(got, want)
    assert ("weight" in module.state_dict()) == (weight is not None)  # so that it moves with the module


def test_upsample_argmax() -> None:
    assert torch.equal(UpsampleArgmax((8, 10))(X), k.upsample_argmax(X, size=(8, 10)))  # type: ignore[arg-type]
    labels, confidence = UpsampleArgmax(confidence=True)(X, grid=BilinearGrid.transposed(2, 1, (8, 10)))
    assert labels.shape == confidence.shape == (2, 8, 10)


def test_scale_factor_and_align_corners() -> None:
    want = k.upsample_add(X, scale_factor=2, align_corners=True)
    assert torch.equal(UpsampleAdd(scale_factor=2, align_corners=True)(X), want)
    plain = {"mode": "bilinear", "scale_factor": 2, "align_corners": True}
    torch.testing.assert_close(want, F.interpolate(X, **plain))  # type: ignore[arg-type]
    loss = k.upsample_cross_entropy(X, TARGET, scale_factor=2, align_corners=True)
    torch.testing.assert_close(loss, F.cross_entropy(F.interpolate(X, **plain), TARGET))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="upsample_add: scale_factor must be positive"):
        UpsampleAdd(scale_factor=0)(X)
    labels = k.upsample_argmax(X, scale_factor=(2, 1.5), dtype=torch.int64)
    assert torch.equal(labels, F.interpolate(X, scale_factor=(2, 1.5), mode="bilinear").argmax(1))  # type: ignore[arg-type]
    assert torch.equal(UpsampleArgmax(scale_factor=(2, 1.5), dtype=torch.int64)(X), labels)  # type: ignore[arg-type]
    got = UpsampleCrossEntropyLoss(align_corners=True)(X, TARGET)
    assert torch.equal(got, k.upsample_cross_entropy(X, TARGET, align_corners=True))
    assert not torch.equal(got, k.upsample_cross_entropy(X, TARGET))
    grid = BilinearGrid.transposed(2, 1, (8, 10))  # overrides what the module samples by
    assert torch.equal(UpsampleAdd(align_corners=True)(X, SKIP, grid=grid), k.upsample_add(X, SKIP, grid=grid))


def test_descriptions() -> None:
    assert str(UpsampleAdd((8, 10))) == "UpsampleAdd(size=(8, 10))"
    assert str(UpsampleAdd(scale_factor=2.5)) == "UpsampleAdd(scale_factor=2.5)"
    assert "smoothing=0.0, align_corners=True)" in str(UpsampleCrossEntropyLoss(align_corners=True))
    assert "(size=(8, 10), confidence" in str(UpsampleArgmax((8, 10)))
    assert str(ConvTransposeAdd(3, 4, 2, 1)) == "ConvTransposeAdd(3, kernel_size=4, stride=2, crop=1)"
    assert "dilation=2" in str(DilatedConv2d(3, 4, 3, dilation=2))
    assert "weight=(3,)" in str(CrossEntropyLoss(torch.rand(3)))
    assert "confidence=True" in str(UpsampleArgmax(confidence=True))
