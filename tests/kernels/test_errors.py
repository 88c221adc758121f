"""Wrong arguments raise, naming the operator, the argument, what was given and what is wanted."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

from fcn_kernels import (
    BilinearGrid,
    bilinear_kernel,
    check_target,
    conv_transpose_add,
    cross_entropy,
    dilated_conv2d,
    rarefy,
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
        (lambda: deconv(W, crop=-1), ValueError, "conv_transpose_add: crop must be at least 0, got -1"),
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
        (lambda: upsample_argmax(X, size=32), TypeError, "upsample_argmax: size must be (height, width), got 32"),
        (lambda: upsample_add(X, size=(8.0, 8.0)), TypeError, "upsample_add: size must be (height, width), got (8.0, 8.0)"),
        (lambda: upsample_add(X, X, size=4), TypeError, "upsample_add: size must be (height, width), got 4"),
        (lambda: deconv(W, size=8), TypeError, "conv_transpose_add: size must be (height, width), got 8"),
        (lambda: deconv(W, stride=2.0), TypeError, "conv_transpose_add: stride must be a whole number, got 2.0"),
        (lambda: deconv(W, crop=None), TypeError, "conv_transpose_add: crop must be a whole number, got None"),
        (lambda: dilated_conv2d(X, X, dilation="a"), TypeError, "dilation must be a whole number or two, got 'a'"),
        (lambda: dilated_conv2d(X, X, padding=None), TypeError, "padding must be a whole number or two, got None"),
        (lambda: dilated_conv2d(X, X, [1.0, 2.0]), TypeError, "dilated_conv2d: bias must be a Tensor, got list"),
        (lambda: upsample_argmax(X.tolist(), size=(8, 8)), TypeError, "upsample_argmax: x must be a Tensor, got list"),
        (lambda: upsample_cross_entropy(X, TARGET.tolist()), TypeError, "target must be a Tensor, got list"),
        (lambda: upsample_cross_entropy(X, TARGET, [1.0, 1.0, 1.0]), TypeError, "weight must be a Tensor, got list"),
        (lambda: upsample_cross_entropy(X, TARGET, ignore_index=None), TypeError, "ignore_index must be a whole number, got None"),
        (lambda: upsample_cross_entropy(X, TARGET, label_smoothing="1"), TypeError, "label_smoothing must be a number, got '1'"),
        (lambda: cross_entropy(X, TARGET[:, :4, :5], torch.ones(3).requires_grad_()), ValueError, "cross_entropy: weight requires a gradient, and has none here; give weight.detach()"),
        (lambda: upsample_cross_entropy(X, TARGET, pixel_weight=torch.ones(2, 8, 10).requires_grad_()), ValueError, "pixel_weight requires a gradient"),
        (lambda: upsample_cross_entropy(X, TARGET, pixel_weight=torch.ones(2, 8, 10).requires_grad_(), backend="reference"), ValueError, "pixel_weight requires a gradient"),
        (lambda: upsample_add(X, grid=BilinearGrid.interpolate((5, 4), (8, 10))), ValueError, "upsample_add: grid was made for scores of (5, 4) pixels, and these have (4, 5)"),
        (lambda: upsample_argmax(X, grid=BilinearGrid.interpolate((5, 4), (8, 10))), ValueError, "upsample_argmax: grid was made for scores of (5, 4)"),
        (lambda: upsample_cross_entropy(X, TARGET, grid=BilinearGrid.interpolate((5, 4), (8, 10), True)), ValueError, "grid was made for scores of (5, 4)"),
        (lambda: upsample_argmax(X, size=(8, 8), dtype=torch.int32), TypeError, "dtype must be torch.uint8 or torch.int64, got torch.int32"),
        (lambda: upsample_argmax(torch.zeros(1, 257, 2, 2), size=(2, 2), dtype=torch.uint8), ValueError, "dtype torch.uint8 holds labels of 256 classes, and there are 257"),
        (lambda: BilinearGrid.transposed(2, 0, 32), TypeError, "BilinearGrid: size must be two whole numbers, (rows, columns), got 32"),
        (lambda: BilinearGrid.transposed(2.0, 0, (4, 4)), TypeError, "BilinearGrid.transposed: stride must be a whole number, got 2.0"),
        (lambda: BilinearGrid.transposed(2, (0, 1, 2), (4, 4)), TypeError, "BilinearGrid.transposed: crop must be a whole number or two, got (0, 1, 2)"),
        (lambda: BilinearGrid.interpolate((4, 5)), TypeError, "BilinearGrid.interpolate: output_size must be two whole numbers"),
        (lambda: BilinearGrid.interpolate((4, 5), (8, 8), scale_factor=2), ValueError, "BilinearGrid.interpolate: give output_size or scale_factor, not both"),
        (lambda: BilinearGrid.interpolate((4, 5), scale_factor="2"), TypeError, "BilinearGrid.interpolate: scale_factor must be a number or two, got '2'"),
        (lambda: upsample_argmax(X, scale_factor=(2, 2, 2)), TypeError, "upsample_argmax: scale_factor must be a number or two, got (2, 2, 2)"),
        (lambda: upsample_argmax(X, scale_factor=0), ValueError, "upsample_argmax: scale_factor must be positive and finite, got 0"),
        (lambda: upsample_argmax(X, scale_factor=float("nan")), ValueError, "upsample_argmax: scale_factor must be positive and finite, got nan"),
        (lambda: upsample_add(X, scale_factor=2**0.5), ValueError, "upsample_add: scale_factor 1.4142135623730951 is no fraction with a denominator up to 16384; give the output's size"),
        (lambda: upsample_argmax(X, (8, 8), scale_factor=2), ValueError, "upsample_argmax: scale_factor makes (8, 10) pixels, and size wants (8, 8)"),
        (lambda: upsample_cross_entropy(X, TARGET, scale_factor=3), ValueError, "upsample_cross_entropy: scale_factor makes (12, 15) pixels, and target wants (8, 10)"),
        (lambda: upsample_add(X, grid=BilinearGrid.interpolate((4, 5), (8, 8)), align_corners=True), ValueError, "upsample_add: grid says where pixels sample; give it alone"),
        (lambda: BilinearGrid.interpolate(4, 8), TypeError, "BilinearGrid.interpolate: input_size must be two whole numbers, (rows, columns), got 4"),
        (lambda: BilinearGrid((8, 8), (1, 2**60), (0, 0), (1, 1)), ValueError, "must stay below 2^62, got step 1152921504606846976"),
        (lambda: BilinearGrid((8, 8), (1, 1), (0, -(2**62)), (1, 1)), ValueError, "must stay below 2^62"),
        (lambda: BilinearGrid((8, 8), (1, 1), (0, 0), (1, 3**40)), ValueError, "denominator 12157665459056928801"),
        (lambda: upsample_add(X, grid=BilinearGrid((8, 8), (1, 1), (0, 0), (2**61, 1))), ValueError, "grid's denominator 2305843009213693952 times 4 pixels must stay below 2^62"),
        (lambda: bilinear_kernel(3.0), TypeError, "bilinear_kernel: kernel_size must be a whole number, got 3.0"),
        (lambda: rarefy([[1.0]], 2), TypeError, "rarefy: weight must be a Tensor, got list"),
        (lambda: check_target([1], 3), TypeError, "check_target: target must be a Tensor, got list"),
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


def test_weights_that_require_a_gradient_are_taken_where_none_is_recorded() -> None:
    with torch.no_grad():
        upsample_cross_entropy(X, TARGET, torch.ones(3).requires_grad_())


@pytest.mark.skipif(CPU_EXTENSION is None, reason="the CPU kernels are not built")
def test_an_unknown_instruction_set_is_refused() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import fcn_kernels"],
        env={**os.environ, "FCN_KERNELS_ISA": "avx3"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == (
        "ValueError: FCN_KERNELS_ISA: no instruction set 'avx3' in this build; want baseline, avx2 or avx512"
    )
