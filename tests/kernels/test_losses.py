"""Losses made of the operators, against the formulas that MONAI, segmentation_models.pytorch (smp), torchvision and nnU-Net
document, written out on upsampled scores in float64."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcn_kernels import (
    BilinearGrid,
    upsample_binary_cross_entropy,
    upsample_cross_entropy,
    upsample_dice_loss,
    upsample_focal_loss,
    upsample_soft_cross_entropy,
    upsample_topk_cross_entropy,
    upsample_tversky_loss,
)
from fcn_kernels import nn as modules
from fcn_kernels.backend import CPU_EXTENSION
from fcn_kernels.ops.upsample_add.reference import upsample

N, C, SIZE = 2, 5, (43, 38)
BACKENDS = ("cpu", "reference") if CPU_EXTENSION else ("reference",)
over_backends = pytest.mark.parametrize("which", BACKENDS)


def problem(classes: int = C) -> tuple[Tensor, Tensor]:
    """Scores and labels, in which class 1 does not occur in the first image and class 3 in neither."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N, classes, 6, 5, dtype=torch.float64, generator=generator).mul(2).requires_grad_()
    target = torch.randint(0, classes, (N, *SIZE), generator=generator)
    if classes == C:
        target[target == 3] = 2
        target[0][target[0] == 1] = 0
    return x, target


def masks(classes: int) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 2, (N, classes, *SIZE), generator=generator, dtype=torch.uint8)


def up(x: Tensor) -> Tensor:
    return F.interpolate(x, SIZE, mode="bilinear")


def one_hot(target: Tensor, classes: int = C) -> Tensor:
    return F.one_hot(target, classes).permute(0, 3, 1, 2).double()


def assert_equal(got: Tensor, want: Tensor, x: Tensor, tolerance: float = 1e-10) -> None:
    """Losses and gradients (of ``"none"``, weighed)."""
    assert got.shape == want.shape
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)
    factor = torch.linspace(0.5, 2, want.numel(), dtype=torch.float64).view(want.shape)
    grads = [torch.autograd.grad((loss * factor).sum(), x, retain_graph=True)[0] for loss in (got, want)]
    torch.testing.assert_close(*grads, rtol=tolerance, atol=tolerance)


def monai_dice(p: Tensor, y: Tensor, o: dict[str, Any]) -> Tensor:
    """DiceLoss of MONAI (smooth_nr = smooth_dr)."""
    if not o.get("include_background", True):
        p, y = p[:, 1:], y[:, 1:]
    axes = (0, 2, 3) if o.get("batch") else (2, 3)
    square = (lambda t: t**2) if o.get("squared_pred") else (lambda t: t)
    intersection = (p * y).sum(axes)
    denominator = square(p).sum(axes) + square(y).sum(axes)
    if o.get("jaccard"):
        denominator = 2 * (denominator - intersection)
    loss = 1 - (2 * intersection + o.get("smooth", 1e-5)) / (denominator + o.get("smooth", 1e-5))
    return {"mean": loss.mean, "sum": loss.sum, "none": lambda: loss}[o.get("reduction", "mean")]()  # type: ignore[no-any-return]


MONAI = [
    {},
    {"smooth": 1.0, "reduction": "sum"},
    {"squared_pred": True, "include_background": False},
    {"jaccard": True, "batch": True},
    {"batch": True, "reduction": "none", "squared_pred": True},
    {"reduction": "none", "include_background": False},
]


@over_backends
@pytest.mark.parametrize("options", MONAI)
def test_dice_is_monais(which: str, options: dict[str, Any]) -> None:
    x, target = problem()
    got = upsample_dice_loss(x, target, backend=which, **options)
    assert_equal(got, monai_dice(up(x).softmax(1), one_hot(target), options), x)
    target_maps = masks(C)
    got = upsample_dice_loss(x, target_maps, sigmoid=True, backend=which, **options)
    assert_equal(got, monai_dice(up(x).sigmoid(), target_maps.double(), options), x)


@over_backends
@pytest.mark.parametrize("options", [{}, {"include_background": False, "batch": True}, {"reduction": "none"}])
def test_tversky_is_monais(which: str, options: dict[str, Any]) -> None:
    """TverskyLoss of MONAI: tp / (tp + alpha * fp + beta * fn), each smoothed."""
    x, target = problem()
    p, y = up(x).softmax(1), one_hot(target)
    if not options.get("include_background", True):
        p, y = p[:, 1:], y[:, 1:]
    axes = (0, 2, 3) if options.get("batch") else (2, 3)
    tp, fp, fn = ((a * b).sum(axes) for a, b in ((p, y), (p, 1 - y), (1 - p, y)))
    loss = 1 - (tp + 1e-5) / (tp + 0.3 * fp + 0.7 * fn + 1e-5)
    want = loss if options.get("reduction") == "none" else loss.mean()
    assert_equal(upsample_tversky_loss(x, target, alpha=0.3, beta=0.7, backend=which, **options), want, x)


def smp_score(p: Tensor, y: Tensor, kind: str, smooth: float, axes: tuple[int, ...]) -> Tensor:
    """soft_dice_score, soft_jaccard_score and soft_tversky_score of smp, with its eps of 1e-7."""
    intersection, cardinality = (p * y).sum(axes), (p + y).sum(axes)
    if kind == "dice":
        return (2 * intersection + smooth) / (cardinality + smooth).clamp_min(1e-7)
    if kind == "jaccard":
        return (intersection + smooth) / (cardinality - intersection + smooth).clamp_min(1e-7)
    fp, fn = (p * (1 - y)).sum(axes), ((1 - p) * y).sum(axes)
    return (intersection + smooth) / (intersection + 0.2 * fp + 0.8 * fn + smooth).clamp_min(1e-7)


@over_backends
@pytest.mark.parametrize("kind", ["dice", "jaccard", "tversky"])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_is_smps(which: str, kind: str, smooth: float) -> None:
    """Over the batch; classes that do not occur have no loss; ignored pixels count nowhere; some classes are chosen."""

    def ours(x: Tensor, target: Tensor, **options: Any) -> Tensor:
        options |= {"batch": True, "count_absent": False, "backend": which}
        if kind == "tversky":
            return upsample_tversky_loss(x, target, alpha=0.2, beta=0.8, smooth=smooth, **options)
        jaccard = kind == "jaccard"  # here smp smooths intersection and union, not twice each
        return upsample_dice_loss(x, target, jaccard=jaccard, smooth=smooth * (2 if jaccard else 1), **options)

    x, target = problem()
    target[:, ::5] = 255
    valid = (target != 255)[:, None]
    p, y = up(x).softmax(1) * valid, one_hot(torch.where(target == 255, 0, target)) * valid
    loss = (1 - smp_score(p, y, kind, smooth, (0, 2, 3))) * (y.sum((0, 2, 3)) > 0)
    assert_equal(ours(x, target, ignore_index=255), loss.mean(), x)
    assert_equal(ours(x, target, ignore_index=255, classes=[3, 0]), loss[[3, 0]].mean(), x)
    x, target = problem(1)[0], masks(1)[:, 0]
    want = 1 - smp_score(up(x).sigmoid(), target[:, None].double(), kind, smooth, (0, 2, 3))
    assert_equal(ours(x, target, sigmoid=True), want.mean(), x)


@over_backends
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_focal(which: str, reduction: str) -> None:
    x, target = problem()
    target[:, ::7] = 255
    alpha = torch.linspace(0.2, 1, C, dtype=torch.float64)
    valid = target != 255
    label = torch.where(valid, target, 0)
    log_p = up(x).log_softmax(1).gather(1, label[:, None])[:, 0]
    for gamma, weight in ((2.0, None), (0.5, alpha), (0.0, alpha)):
        loss = -((1 - log_p.exp()) ** gamma) * log_p * valid
        if weight is not None:
            loss = loss * weight[label]
        want = {"mean": loss.sum() / valid.sum(), "sum": loss.sum(), "none": loss}[reduction]
        got = upsample_focal_loss(x, target, weight, gamma=gamma, ignore_index=255, reduction=reduction, backend=which)
        assert_equal(got, want, x)


@over_backends
@pytest.mark.parametrize("classes", [1, 3])
def test_focal_of_sigmoids_is_torchvisions(which: str, classes: int) -> None:
    """sigmoid_focal_loss: alpha weighs 1 and (1 - alpha) weighs 0."""
    x, y = problem(classes)[0], masks(classes)
    z, alpha = up(x), 0.25
    ce = F.binary_cross_entropy_with_logits(z, y.double(), reduction="none")
    p_t = torch.where(y == 1, z.sigmoid(), 1 - z.sigmoid())
    want = torch.where(y == 1, alpha, 1 - alpha) * ce * (1 - p_t) ** 2
    for reduction in ("mean", "none"):
        got = upsample_focal_loss(
            x, y, torch.tensor([1 - alpha, alpha]).double(), sigmoid=True, reduction=reduction, backend=which
        )
        assert_equal(got, want.mean() if reduction == "mean" else want, x)


def test_focal_where_a_pixel_is_certain() -> None:
    """There the derivative of a power below 1 is infinite, and that of the loss is 0."""
    x = torch.zeros(1, 2, 3, 3)
    x[:, 0] = 1000
    for gamma in (0.5, 2.0):
        leaf = x.clone().requires_grad_()
        loss = upsample_focal_loss(leaf, torch.zeros(1, 9, 9, dtype=torch.uint8), gamma=gamma)
        assert loss == 0
        assert float(torch.autograd.grad(loss, leaf)[0].abs().max()) < 1e-20


@over_backends
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy(which: str, classes: int, weighted: bool) -> None:
    x, y = problem(classes)[0], masks(classes)
    pos_weight = torch.linspace(0.3, 2, classes, dtype=torch.float64) if weighted else None
    broadcast = None if pos_weight is None else pos_weight[:, None, None]
    full = F.binary_cross_entropy_with_logits(up(x), y.double(), pos_weight=broadcast, reduction="none")
    for reduction in ("mean", "sum", "none"):
        want = {"mean": full.mean(), "sum": full.sum(), "none": full}[reduction]
        for target in (y, y.bool()):
            got = upsample_binary_cross_entropy(x, target, pos_weight, reduction=reduction, backend=which)
            assert_equal(got, want, x)
    y[:, :, ::4] = 255
    want = full[y != 255].mean()
    assert_equal(upsample_binary_cross_entropy(x, y, pos_weight, ignore_index=255, backend=which), want, x)
    if classes == 1:
        got = upsample_binary_cross_entropy(x, y[:, 0], pos_weight, ignore_index=255, backend=which)
        assert_equal(got, want, x)


@over_backends
def test_soft_targets(which: str) -> None:
    x, _ = problem()
    q = torch.randn(N, C, *SIZE, dtype=torch.float64).softmax(1)
    q[:, :, ::5] = 0  # pixels that count nowhere, and some that are no probabilities
    q[:, :, 1] *= 3
    for layout in (torch.contiguous_format, torch.channels_last):
        for reduction in ("mean", "sum"):
            got = upsample_soft_cross_entropy(x, q.contiguous(memory_format=layout), reduction=reduction, backend=which)
            assert_equal(got, F.cross_entropy(up(x), q, reduction=reduction), x)


@over_backends
@pytest.mark.parametrize("border", ["clamp", "zeros"])
def test_coarse_soft_targets(which: str, border: str) -> None:
    x, _ = problem()
    q = torch.randn(N, C, 9, 4, dtype=torch.float64).softmax(1)
    grid, target_grid = BilinearGrid.interpolate((6, 5), SIZE), BilinearGrid.interpolate((9, 4), SIZE, True)
    if border == "zeros":
        grid, target_grid = BilinearGrid.transposed(8, 4, SIZE), BilinearGrid.transposed(5, 2, SIZE)
    got = upsample_soft_cross_entropy(x, q, grid=grid, target_grid=target_grid, backend=which)
    assert_equal(got, F.cross_entropy(upsample(x, grid), upsample(q, target_grid)), x)


def test_soft_targets_keep_their_digits_in_float32() -> None:
    """Confident scores with a large common offset: the terms that the loss is made of are large, and cancel."""
    x = (torch.randn(N, C, 6, 5) * 8 + 300).requires_grad_()
    q = up((x.detach().double() * 0.9).softmax(1)).float()
    exact = F.cross_entropy(up(x.double()), q.double())
    torchs = F.cross_entropy(up(x), q)
    got = upsample_soft_cross_entropy(x, q)
    assert abs(got.double() - exact) <= abs(torchs.double() - exact) + 1e-5 * exact


@over_backends
@pytest.mark.parametrize("k", [10, 33.3, 100, 1e-9])
def test_topk(which: str, k: float) -> None:
    x, target = problem()
    target[:, ::7] = 255
    losses = F.cross_entropy(up(x), target, ignore_index=255, reduction="none").flatten()
    want = losses.sort(descending=True).values[: max(1, int(len(losses) * k / 100))].mean()
    assert_equal(upsample_topk_cross_entropy(x, target, k=k, ignore_index=255, backend=which), want, x)


def test_kernels_of_all_backends_serve_them(backend: str) -> None:
    x, target, q = torch.randn(1, 2, 3, 4), torch.randint(0, 2, (1, 9, 12)), torch.rand(1, 2, 9, 12)
    calls: list[Callable[[Tensor, str], Tensor]] = [
        lambda x, which: upsample_focal_loss(x, target, backend=which),
        lambda x, which: upsample_binary_cross_entropy(x[:, :1], target, torch.ones(1) * 3, backend=which),
        lambda x, which: upsample_soft_cross_entropy(x, q, backend=which),
        lambda x, which: upsample_topk_cross_entropy(x, target, k=50, backend=which),
    ]
    for call in calls:
        leaves = [x.clone().requires_grad_(), x.double().requires_grad_()]
        got, want = call(leaves[0], backend), call(leaves[1], "reference")
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
        grads = torch.autograd.grad(got, leaves[0])[0].double(), torch.autograd.grad(want, leaves[1])[0]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_empty_batches() -> None:
    x, target = torch.randn(0, 3, 4, 4, requires_grad=True), torch.zeros(0, 8, 8, dtype=torch.uint8)
    assert upsample_focal_loss(x, target) == 0
    assert upsample_topk_cross_entropy(x, target) == 0
    assert upsample_soft_cross_entropy(x, torch.rand(0, 3, 8, 8)) == 0
    assert upsample_binary_cross_entropy(x, target[:, None].expand(0, 3, 8, 8)) == 0
    assert upsample_dice_loss(x, target, batch=True, reduction="sum").isfinite()


def test_compile_whole() -> None:
    torch._dynamo.reset()
    x, target = problem()
    q = one_hot(target)

    def all_of_them(x: Tensor) -> Tensor:
        return (
            upsample_focal_loss(x, target) + upsample_soft_cross_entropy(x, q) + upsample_topk_cross_entropy(x, target)
        )

    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    assert_equal(compiled(x), all_of_them(x), x)


def test_modules() -> None:
    x, target = problem()
    x = x.detach()
    grid = BilinearGrid.transposed(8, 4, SIZE)
    alpha, bce = torch.rand(C), upsample_cross_entropy(x, target, grid=grid, ignore_index=0)
    pairs = [
        (modules.UpsampleDiceLoss(batch=True, classes=[1, 2]), upsample_dice_loss(x, target, grid=grid, batch=True, classes=[1, 2])),
        (modules.UpsampleTverskyLoss(0.3, 0.7), upsample_tversky_loss(x, target, grid=grid, alpha=0.3, beta=0.7)),
        (modules.UpsampleFocalLoss(alpha), upsample_focal_loss(x, target, alpha, grid=grid)),
        (modules.UpsampleTopKLoss(k=20), upsample_topk_cross_entropy(x, target, grid=grid, k=20)),
        (modules.UpsampleDiceCELoss(lambda_ce=0.5, ignore_index=0), upsample_dice_loss(x, target, grid=grid, ignore_index=0) + 0.5 * bce),
    ]  # fmt: skip
    for module, want in pairs:
        assert torch.equal(module(x, target, grid=grid), want)
    y, q = masks(C), torch.rand(N, C, *SIZE)
    module = modules.UpsampleBCEWithLogitsLoss(alpha)
    assert torch.equal(module(x, y, grid=grid), upsample_binary_cross_entropy(x, y, alpha, grid=grid))
    assert torch.equal(modules.UpsampleSoftCrossEntropyLoss()(x, q), upsample_soft_cross_entropy(x, q))
    assert "alpha" in modules.UpsampleFocalLoss(alpha).state_dict()
    assert "alpha=(5,), gamma=2.0" in str(modules.UpsampleFocalLoss(alpha))


X, TARGET = torch.randn(2, 3, 4, 5), torch.zeros(2, 8, 10, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: upsample_dice_loss(X, TARGET, smooth=-1), ValueError, "upsample_dice_loss: smooth must be at least 0, got -1"),
        (lambda: upsample_dice_loss(X, TARGET, smooth="a"), TypeError, "upsample_dice_loss: smooth must be a number, got 'a'"),
        (lambda: upsample_dice_loss(X, TARGET, reduction="avg"), ValueError, "one of none, sum, mean, got 'avg'"),
        (lambda: upsample_dice_loss(X, TARGET, classes=[3]), ValueError, "classes must be some of 0 ... 2, got [3]"),
        (lambda: upsample_dice_loss(X, TARGET, classes=[]), ValueError, "classes must be some of 0 ... 2, got []"),
        (lambda: upsample_dice_loss(X, TARGET, classes=[1], include_background=False), ValueError, "leave include_background at True"),
        (lambda: upsample_dice_loss(X[:, :1], TARGET, include_background=False), ValueError, "there is one class"),
        (lambda: upsample_dice_loss(X, TARGET.float()), TypeError, "upsample_region_sums: target must be one of uint8"),
        (lambda: upsample_tversky_loss(X, TARGET, alpha=-0.1), ValueError, "upsample_tversky_loss: alpha must be at least 0"),
        (lambda: upsample_tversky_loss(X, TARGET, sigmoid=True), ValueError, "target must be [N, C, H, W] with N, C = (2, 3), got shape (2, 8, 10)"),
        (lambda: upsample_focal_loss(X, TARGET, torch.ones(2)), ValueError, "alpha must have shape [3], one per class, got (2,)"),
        (lambda: upsample_focal_loss(X, TARGET, 0.25), TypeError, "upsample_focal_loss: alpha must be a Tensor, got float"),
        (lambda: upsample_focal_loss(X, TARGET, gamma=-2), ValueError, "upsample_focal_loss: gamma must be at least 0, got -2"),
        (lambda: upsample_binary_cross_entropy(X[:, :1], TARGET[:1]), ValueError, "[N, C, H, W] or [N, H, W] with N, C = (2, 1), got shape (1, 8, 10)"),
        (lambda: upsample_binary_cross_entropy(X[:, :1], TARGET, torch.ones(3)), ValueError, "pos_weight must have shape [1], one per class, got (3,)"),
        (lambda: upsample_binary_cross_entropy(X[:, :1], TARGET, 3.0), TypeError, "pos_weight must be a Tensor, got float"),
        (lambda: upsample_soft_cross_entropy(X, TARGET), TypeError, "upsample_soft_cross_entropy: target must be floating point, got torch.int64"),
        (lambda: upsample_soft_cross_entropy(X, X[:1]), ValueError, "target must be [N, C, H, W] with N, C = (2, 3), got (1, 3, 4, 5)"),
        (lambda: upsample_soft_cross_entropy(X, X, reduction="none"), ValueError, "reduction must be one of sum, mean, got 'none'"),
        (lambda: upsample_soft_cross_entropy(X, X.clone().requires_grad_()), ValueError, "target requires a gradient"),
        (lambda: upsample_topk_cross_entropy(X, TARGET, k=0), ValueError, "upsample_topk_cross_entropy: k must lie in (0, 100], got 0"),
        (lambda: upsample_topk_cross_entropy(X, TARGET, k=None), TypeError, "k must be a number, got None"),
        (lambda: modules.UpsampleDiceCELoss(sigmoid=True), ValueError, "UpsampleDiceCELoss: for softmaxes"),
        (lambda: modules.UpsampleDiceCELoss(reduction="none"), ValueError, "one of sum, mean, got 'none'"),
    ],
)  # fmt: skip
def test_message(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()
