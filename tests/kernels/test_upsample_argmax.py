"""upsample_argmax: every backend against the reference in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fcn_kernels import launch, upsample_argmax
from fcn_kernels.backend import implementation
from fcn_kernels.ops.upsample_add.reference import upsample
from tests.kernels.conftest import images_of, interpreted, side_of
from tests.strategies import assert_fences_hold, dtypes_of, fenced, grids, scores


@given(data=st.data())
def test_labels_and_confidence(backend: str, data: st.DataObject) -> None:
    x = data.draw(
        scores(max_classes=6 if interpreted(backend) else 30, max_images=images_of(backend), dtypes=dtypes_of(backend))
    )
    grid = data.draw(grids((x.shape[2], x.shape[3]), side_of(backend)))
    labels = upsample_argmax(x, grid=grid, backend=backend)
    again, confidence = upsample_argmax(x, grid=grid, confidence=True, backend=backend)
    assert isinstance(labels, torch.Tensor)
    assert labels.dtype == torch.uint8
    assert torch.equal(labels, again)
    if x.numel() == 0:
        assert labels.shape == (0, *grid.size)
        return
    oracle = upsample(x.double(), grid)
    chosen = oracle.gather(1, labels[:, None].long())[:, 0]
    # The winner's score is the maximum up to the rounding of an interpolation in the dtype computed in.
    eps = torch.finfo(confidence.dtype).eps
    slack = 8 * eps * x.double().abs().max()
    assert bool((chosen >= oracle.amax(1) - slack).all())
    want = oracle.softmax(1).gather(1, labels[:, None].long())[:, 0]
    torch.testing.assert_close(confidence.double(), want, rtol=float(16 * eps + 4 * slack), atol=1e-30)


@given(data=st.data())
def test_ties_go_to_the_lowest_class(backend: str, data: st.DataObject) -> None:
    x = data.draw(scores(kinds=("constant", "equal_classes"), min_images=1, dtypes=dtypes_of(backend)))
    grid = data.draw(grids((x.shape[2], x.shape[3]), side_of(backend)))
    assert not upsample_argmax(x, grid=grid, backend=backend).any()  # type: ignore[union-attr]


def test_repeated_classes_tie_everywhere(backend: str) -> None:
    x = torch.randn(1, 6, 9, 9)
    x = torch.cat((x, x), 1)
    labels = upsample_argmax(x, size=(72, 72), backend=backend)
    assert int(labels.max()) < 6  # type: ignore[union-attr]


def test_more_than_256_classes_are_int64(backend: str) -> None:
    x = torch.randn(1, 300, 4, 5)
    labels = upsample_argmax(x, size=(32, 40), backend=backend)
    assert isinstance(labels, torch.Tensor)
    assert labels.dtype == torch.int64
    want = F.interpolate(x.double(), (32, 40), mode="bilinear").argmax(1)
    assert (labels != want).float().mean() < 1e-3


def test_labels_of_either_dtype(backend: str) -> None:
    x = torch.randn(2, 5, 6, 7)
    for confidence in (False, True):
        results = [
            upsample_argmax(x, size=(33, 40), confidence=confidence, dtype=dtype, backend=backend)
            for dtype in (None, torch.uint8, torch.int64)
        ]
        labels = [result[0] if isinstance(result, tuple) else result for result in results]
        assert [found.dtype for found in labels] == [torch.uint8, torch.uint8, torch.int64]
        assert all(torch.equal(found.long(), labels[2]) for found in labels)


def test_nan_wins_as_in_torch(backend: str) -> None:
    x = torch.randn(1, 4, 6, 6)
    x[0, 2, 3, 3] = torch.nan
    x[0, 3, 3, 3] = torch.nan
    got = upsample_argmax(x, size=(48, 48), backend=backend)
    want = F.interpolate(x, (48, 48), mode="bilinear").argmax(1)
    near = F.interpolate(x, (48, 48), mode="bilinear").isnan().any(1)
    assert near.any()
    assert bool((got == want)[near].all())


@pytest.mark.parametrize("factor", [8, 24])  # whole cells, and cells in pieces
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_no_winner_is_lost_to_pruning(backend: str, scale: float, factor: int) -> None:
    """Smooth maps with a trend: most classes leave the loop in most cells, and none that wins."""
    side = 64 // factor if interpreted(backend) else 256 // factor
    x = F.interpolate(torch.randn(1, 21, 5, 5, dtype=torch.float64), (side, side), mode="bilinear") * scale
    size = (factor * side, factor * side)
    labels = upsample_argmax(x.float(), size=size, backend=backend)
    oracle = F.interpolate(x.float().double(), size, mode="bilinear")
    chosen = oracle.gather(1, labels[:, None].long())[:, 0]  # type: ignore[index]
    assert float((oracle.amax(1) - chosen).max()) < 1e-5 * scale


@given(data=st.data())
def test_writes_every_pixel_and_no_other(backend: str, data: st.DataObject) -> None:
    few = 5 if interpreted(backend) else 23
    x = data.draw(
        scores(dtypes=(torch.float32,), kinds=("normal",), min_images=1, max_images=images_of(backend), max_classes=few)
    )
    grid = data.draw(grids((x.shape[2], x.shape[3]), side_of(backend)))
    shape = (x.shape[0], *grid.size)
    labels, label_buffer = fenced(shape, torch.uint8)
    confidence, confidence_buffer = fenced(shape, torch.float32)
    implementation("upsample_argmax", backend).upsample_argmax(x, grid.as_ints(), labels, confidence)
    assert_fences_hold(label_buffer)
    assert_fences_hold(confidence_buffer)
    assert int(labels.max()) < x.shape[1]
    assert not confidence.isnan().any()


@pytest.mark.parametrize("wide", [False, True])
def test_patches_of_every_size(backend: str, wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend != "triton":
        pytest.skip("other backends' patches have one size, and their offsets 64 bits")
    monkeypatch.setattr(launch, "force_wide", wide)
    launcher = implementation("upsample_argmax", backend)
    x = torch.randn(2, 5, 6, 7)
    for rows, columns, size in ((4, 8, (48, 56)), (4, 8, (100, 80)), (3, 5, (33, 64)), (1, 2, (5, 7))):
        monkeypatch.setattr(launcher, "MOST_ROWS", rows)
        monkeypatch.setattr(launcher, "MOST_COLUMNS", columns)
        labels, confidence = upsample_argmax(x, size=size, confidence=True, backend=backend)
        want = F.interpolate(x.double(), size, mode="bilinear").softmax(1).amax(1)
        torch.testing.assert_close(confidence.double(), want, rtol=1e-5, atol=0)
        other = labels != upsample_argmax(x, size=size, backend="reference")
        assert other.float().mean() < 1e-3  # ties, but for rounding


def test_every_instruction_set_agrees(isa: str) -> None:
    x = torch.randn(2, 21, 17, 33, dtype=torch.float64)
    got = upsample_argmax(x.float(), size=(136, 264), backend="cpu")
    want = upsample_argmax(x.float().double(), size=(136, 264), backend="reference")
    assert isinstance(got, torch.Tensor)
    assert (got != want).float().mean() < 1e-4
    assert torch.equal(
        upsample_argmax(x, size=(136, 264), backend="cpu"),  # type: ignore[arg-type]
        upsample_argmax(x, size=(136, 264), backend="reference"),  # type: ignore[arg-type]
    )
