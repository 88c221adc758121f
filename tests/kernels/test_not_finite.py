"""Scores that are not finite: classes excluded by -inf, above all; NaN and +inf."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import BilinearGrid, upsample_argmax, upsample_cross_entropy
from fcn_kernels.ops.upsample_add.reference import upsample
from tests.kernels.conftest import interpreted
from tests.strategies import dtypes_of, grids

GRIDS = [
    BilinearGrid.interpolate((5, 6), (40, 48)),
    BilinearGrid.interpolate((5, 6), (13, 16), align_corners=True),  # some pixels lie on scores, and sample them alone
    BilinearGrid.interpolate((5, 6), (5, 6)),
    BilinearGrid.interpolate((5, 6), (3, 11)),
    BilinearGrid.transposed(4, 3, (20, 24)),
]


def excluded(dtype: torch.dtype = torch.float32) -> Tensor:
    """Scores of five classes: one excluded everywhere, others here and there, and at two places every class."""
    x = torch.randn(2, 5, 5, 6).to(dtype)
    x[:, 2] = -torch.inf
    x[0, :3, 1, 2] = -torch.inf
    x[0, 4, 3] = -torch.inf
    x[1, 0, ::2] = -torch.inf
    x[0, :, 0, 0] = x[1, :, 4, 5] = -torch.inf
    return x


def likely_labels(x: Tensor, grid: BilinearGrid) -> Tensor:
    """Labels whose scores are finite, 255 where no class's is."""
    scores = upsample(x.double(), grid)
    labels = (scores + 2 * torch.randn_like(scores)).argmax(1)
    return torch.where(scores.isinf().all(1), 255, labels)


@given(data=st.data())
def test_reference_counts_what_has_weight_and_nothing_else(data: st.DataObject) -> None:
    grid = data.draw(grids((3, 4)))
    x = torch.randn(1, 1, 3, 4, dtype=torch.float64)
    i, j = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 3))
    kind = data.draw(st.sampled_from((-torch.inf, torch.inf, torch.nan)))
    weight = upsample(torch.zeros_like(x).index_put((*map(torch.tensor, (0, 0, i, j)),), torch.ones(()).double()), grid)
    x[0, 0, i, j] = 0
    want = torch.where(weight > 0, kind, upsample(x, grid))
    x[0, 0, i, j] = kind
    torch.testing.assert_close(upsample(x, grid), want, equal_nan=True)


@pytest.mark.parametrize("grid", GRIDS)
def test_an_excluded_class_never_wins(backend: str, grid: BilinearGrid) -> None:
    for dtype in dtypes_of(backend):
        x = excluded(dtype)
        scores = upsample(x.double(), grid)
        labels, confidence = upsample_argmax(x, grid=grid, confidence=True, backend=backend)
        assert torch.equal(upsample_argmax(x, grid=grid, backend=backend), labels)  # type: ignore[arg-type]
        chosen = scores.gather(1, labels[:, None].long())[:, 0]
        none = scores.isinf().all(1)
        assert bool((chosen.isfinite() | none).all())
        assert not labels[none].any()
        assert bool((chosen >= scores.amax(1) - 1e-5).all())
        torch.testing.assert_close(confidence.double(), scores.softmax(1).amax(1), rtol=1e-5, atol=1e-6, equal_nan=True)


def test_every_instruction_set_excludes(isa: str) -> None:
    for dtype, grid in itertools.product((torch.float32, torch.float64), GRIDS):
        x = excluded(dtype)
        labels = [upsample_argmax(x, grid=grid, backend=backend) for backend in ("cpu", "reference")]
        assert torch.equal(*labels)  # type: ignore[arg-type]
        target = likely_labels(x, grid)
        losses = [
            upsample_cross_entropy(x, target, grid=grid, ignore_index=255, backend=b) for b in ("cpu", "reference")
        ]
        assert losses[0].isfinite()
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("grid", GRIDS)
def test_loss_and_gradient_of_labels_with_finite_scores(backend: str, grid: BilinearGrid, reduction: str) -> None:
    dtypes = dtypes_of(backend)[:1] if interpreted(backend) else dtypes_of(backend)
    for dtype, weighed in itertools.product(dtypes, (True,) if interpreted(backend) else (False, True)):
        x = excluded(dtype)
        target = likely_labels(x, grid)
        weights = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5]) if weighed else None
        pixels = torch.rand(target.shape) * (torch.rand(target.shape) < 0.8) if weighed else None
        results = []
        for which, computed in ((backend, dtype), ("reference", torch.float64)):
            leaf = x.detach().clone().to(computed).requires_grad_()
            loss = upsample_cross_entropy(
                leaf, target, weights, pixel_weight=pixels, grid=grid, ignore_index=255, reduction=reduction,
                backend=which,
            )  # fmt: skip
            loss.sum().backward()
            assert leaf.grad is not None
            results.append((loss.detach().double(), leaf.grad.double()))
        (loss, grad), (want, want_grad) = results
        assert bool(loss.isfinite().all())
        torch.testing.assert_close(loss, want, rtol=1e-5, atol=1e-6)
        assert bool(grad.isfinite().all())
        assert not grad[x.isinf()].any()  # an excluded class has the probability 0
        half = dtype in (torch.bfloat16, torch.float16)
        torch.testing.assert_close(grad, want_grad, rtol=1e-2 if half else 1e-4, atol=1e-4 if half else 1e-5)


def test_excluded_everywhere_is_as_if_there_were_no_such_class(backend: str) -> None:
    x = torch.randn(2, 5, 5, 6)
    fewer = x[:, [0, 1, 3, 4]].clone().requires_grad_()
    x[:, 2] = -torch.inf
    x.requires_grad_()
    target = torch.randint(0, 4, (2, 20, 24))
    want = upsample_cross_entropy(fewer, target, backend="reference")
    got = upsample_cross_entropy(x, target + (target > 1), backend=backend)
    torch.testing.assert_close(got, want)
    (grad,), (want_grad,) = torch.autograd.grad(got, x), torch.autograd.grad(want, fewer)
    torch.testing.assert_close(grad[:, [0, 1, 3, 4]], want_grad)
    assert not grad[:, 2].any()


def test_an_excluded_label_costs_infinity(backend: str) -> None:
    """As in PyTorch; and so does, where labels are smoothed, any class that has a weight and is excluded."""
    x, target = torch.randn(1, 3, 4, 4), torch.ones(1, 16, 16, dtype=torch.int64)
    x[:, 1] = -torch.inf
    for reduction in ("mean", "none"):
        assert bool((upsample_cross_entropy(x, target, reduction=reduction, backend=backend) == torch.inf).all())
        weight, other = torch.tensor([1.0, 0.0, 1.0]), torch.zeros_like(target)
        for weights, infinite in ((None, True), (weight, False)):
            options = {"reduction": reduction, "label_smoothing": 0.1, "backend": backend}
            loss = upsample_cross_entropy(x, other, weights, **options)  # type: ignore[arg-type]
            assert bool((loss.isinf() == infinite).all())
            assert not loss.isnan().any()


def test_pixels_that_do_not_count_may_have_any_scores(backend: str) -> None:
    for value in (-torch.inf, torch.inf, torch.nan):
        x = torch.randn(1, 3, 4, 5)
        target = torch.randint(0, 3, (1, 16, 20))
        target[
            upsample((torch.arange(20).view(1, 1, 4, 5) == 7).float(), BilinearGrid.interpolate((4, 5), (16, 20)))[:, 0]
            > 0
        ] = 255
        results = []
        for given_ in (
            x,
            x.index_put((torch.tensor(0), torch.arange(3), torch.tensor(1), torch.tensor(2)), torch.tensor(value)),
        ):
            leaf = given_.clone().requires_grad_()
            loss = upsample_cross_entropy(leaf, target, ignore_index=255, backend=backend)
            results.append((loss.detach(), *torch.autograd.grad(loss, leaf)))
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_nan_and_infinity_show_where_they_have_weight(backend: str, value: float) -> None:
    x, grid = torch.randn(1, 3, 5, 6), BilinearGrid.interpolate((5, 6), (20, 24))
    x[0, 1, 2, 3] = value
    bad = ~upsample(x, grid).isfinite().all(1)
    labels, confidence = upsample_argmax(x, grid=grid, confidence=True, backend=backend)
    assert bool((labels[bad] == 1).all())
    assert torch.equal(confidence.isnan(), bad)
    target = torch.zeros(1, 20, 24, dtype=torch.int64)
    loss = upsample_cross_entropy(x, target, grid=grid, reduction="none", backend=backend)
    assert torch.equal(~loss.isfinite(), bad)
    assert not upsample_cross_entropy(x, target, grid=grid, backend=backend).isfinite()
