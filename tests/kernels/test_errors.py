"""Wrong arguments raise, naming the operator, the argument, what was given and what is wanted."""

from __future__ import annotations

import re

import pytest
import torch

from fcn_kernels import (
    BilinearGrid,
    check_target,
    conv_transpose_add,
    dilated_conv2d,
    upsample_add,
    upsample_argmax,
    upsample_cross_entropy,
    use_backend,
)
from fcn_kernels.backend import BACKENDS, CPU_EXTENSION, why_not

X = torch.randn(2, 3, 4, 5)
TARGET = torch.zeros(2, 8, 10, dtype=torch.int64)
W = torch.randn(3, 1, 4, 4)


def deconv(
    weight: torch.Tensor, skip: torch.Tensor | None = None, *, stride: int = 2, **options: object
) -> torch.Tensor:
    return conv_transpose_add(X, weight, skip, stride=stride, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: upsample_add(X[0]), ValueError, "upsample_add: x must be [N, C, H, W], got shape (3, 4, 5)"),
        (lambda: upsample_add(X), ValueError, "upsample_add: give one of size"),
        (lambda: upsample_add(X.int(), size=(8, 8)), TypeError, "x must be one of float32, float64, bfloat16, float16, got"),
        (lambda: upsample_add(X, X[:, :2]), ValueError, "skip must be [N, C, H, W] with N, C = (2, 3), got (2, 2, 4, 5)"),
        (lambda: upsample_add(X, X.half()), TypeError, "skip must have the dtype of x, torch.float32; got torch.float16"),
        (lambda: upsample_add(X, X, size=(8, 8)), ValueError, "size is (8, 8) and skip has (4, 5)"),
        (lambda: upsample_add(X, [1]), TypeError, "skip must be a Tensor, got list"),
        (
            lambda: upsample_add(X, X, grid=BilinearGrid.transposed(2, 0, (8, 10))),
            ValueError,
            "grid makes (8, 10) pixels, and skip wants (4, 5)",
        ),
        (lambda: deconv(W[:2]), ValueError, "conv_transpose_add: weight must be [C, 1, k, k] with C = 3, got shape (2, 1, 4, 4)"),
        (lambda: deconv(W[..., :3]), ValueError, "weight must be [C, 1, k, k] with C = 3, got shape (3, 1, 4, 3)"),
        (lambda: deconv(W.half()), TypeError, "weight must have the dtype of x, torch.float32; got torch.float16"),
        (lambda: deconv(W, X[:1]), ValueError, "conv_transpose_add: skip must be [N, C, H, W] with N, C = (2, 3), got (1, 3"),
        (lambda: deconv(W, X, size=(8, 8)), ValueError, "conv_transpose_add: size is (8, 8) and skip has (4, 5)"),
        (lambda: deconv(W, stride=0), ValueError, "conv_transpose_add: stride must be at least 1, got 0"),
        (lambda: deconv(W, crop=-1), ValueError, "conv_transpose_add: crop must not be negative, got -1"),
        (
            lambda: deconv(W, crop=3, size=(8, 9)),
            ValueError,
            "at least 1 within the (10, 12) pixels that x feeds, less the crop of 3; got (8, 9)",
        ),
        (lambda: deconv(W, crop=10), ValueError, "less the crop of 10; got (0, 2)"),
        (lambda: dilated_conv2d(X, W), ValueError, "dilated_conv2d: weight must be [O, 3, k, l], got shape (3, 1, 4, 4)"),
        (lambda: dilated_conv2d(X, X, torch.ones(3)), ValueError, "bias must have shape [2], one per filter, got (3,)"),
        (lambda: dilated_conv2d(X, X.double()), TypeError, "weight must have the dtype of x, torch.float32; got torch.float64"),
        (lambda: dilated_conv2d(X, X, dilation=0), ValueError, "dilation must be a number of at least 1, or two, got 0"),
        (lambda: dilated_conv2d(X, X, padding=(1, 2, 3)), ValueError, "padding must be a number of at least 0, or two, got (1"),
        (
            lambda: dilated_conv2d(X, X, dilation=(2, 1), padding=(1, 0)),
            ValueError,
            "the filter spans (7, 5) pixels with dilation (2, 1), and the input has only (6, 5) with padding (1, 0)",
        ),
        (lambda: upsample_argmax(X, size=(8,)), ValueError, "upsample_argmax: size must be (height, width), got (8,)"),
        (lambda: upsample_argmax(X, grid=(8, 8)), TypeError, "grid must be a BilinearGrid, got tuple"),
        (lambda: upsample_argmax(X[:, :0], size=(8, 8)), ValueError, "must have C, H, W of at least 1"),
        (lambda: upsample_cross_entropy(X, TARGET.float()), TypeError, "target must be one of uint8, int16, int32, int64"),
        (lambda: upsample_cross_entropy(X, TARGET[:1]), ValueError, "target must be [N, H, W] with N = 2, got shape (1, 8"),
        (lambda: upsample_cross_entropy(X, TARGET, torch.ones(4)), ValueError, "weight must have shape [3], one per class"),
        (
            lambda: upsample_cross_entropy(X, TARGET, pixel_weight=torch.ones(2, 8, 9)),
            ValueError,
            "pixel_weight must have the shape of target, (2, 8, 10), got (2, 8, 9)",
        ),
        (lambda: upsample_cross_entropy(X, TARGET, reduction="avg"), ValueError, "one of none, sum, mean, got 'avg'"),
        (lambda: upsample_cross_entropy(X, TARGET, label_smoothing=2), ValueError, "label_smoothing must lie in [0, 1], got 2"),
        (lambda: upsample_cross_entropy(X, TARGET, backend="gpu"), ValueError, "backend 'gpu' cannot run: there is no such"),
        (lambda: check_target(TARGET + 3, 3), ValueError, "target[0, 0, 0] is 3; labels must lie in [0, 3)"),
    ],
)  # fmt: skip
def test_message(call: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()  # type: ignore[operator]


@pytest.mark.skipif(CPU_EXTENSION is None, reason="the CPU kernels are not built")
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(1, 3, 2, 2, dtype=torch.int8), ValueError, "x: no such dtype is known here"),
        (torch.zeros(3, 2, 2), ValueError, "x: has 3 dimensions, want 4"),
        (torch.zeros(1, 3, 0, 2), ValueError, "x: null pointer"),
        (torch.zeros(1, 2, 2, 2), ValueError, "out: size 3 of dimension 1, want 2"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16), ValueError, "x: dtype differs from out's"),
        ([[[[1.0]]]], RuntimeError, "<class 'list'>"),  # what is no tensor, PyTorch refuses
    ],
)
def test_the_compiled_module_checks_again_what_memory_hangs_on(x: object, error: type[Exception], message: str) -> None:
    grid = BilinearGrid.interpolate((2, 2), (4, 4)).as_ints()
    with pytest.raises(error, match=re.escape(message)):
        CPU_EXTENSION.upsample_add(x, None, torch.zeros(1, 3, 4, 4), grid, False, 1)  # type: ignore[union-attr]


def test_check_target_accepts_labels_and_ignored_pixels() -> None:
    check_target(torch.tensor([[0, 2], [255, 1]], dtype=torch.uint8), 3, ignore_index=255)


def test_backends_that_cannot_run_say_why() -> None:
    for name in BACKENDS:
        reason = why_not(name, "cpu")
        if reason is None:
            upsample_argmax(X, size=(8, 8), backend=name)
            continue
        with pytest.raises(ValueError, match=re.escape(reason)):
            upsample_argmax(X, size=(8, 8), backend=name)
        with pytest.raises(ValueError, match=name), use_backend(name):
            upsample_argmax(X, size=(8, 8))


def test_use_backend_holds_inside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    reference = upsample_argmax.__globals__["upsample_argmax_reference"]
    monkeypatch.setitem(
        upsample_argmax.__globals__, "upsample_argmax_reference", lambda *args: calls.append(1) or reference(*args)
    )
    with use_backend("reference"):
        upsample_argmax(X, size=(8, 8))
        assert calls == [1]
        with use_backend("auto"):
            upsample_argmax(X, size=(8, 8), backend="reference")
    assert calls == [1, 1]


def test_reference_turns_an_unknown_label_into_nan() -> None:
    for label in (3, -7):
        assert upsample_cross_entropy(X, TARGET + label, backend="reference").isnan()
