"""Distorted views."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcn.data import VOID, Augmentation
from fcn.data.distortion import blurred, noisy, relit, warped
from fcn.data.preprocessing import Preprocessing


class Most:
    """Draws the largest value of each range."""

    def uniform(self, low: float, high: float, shape: tuple[int, ...] | None = None) -> float | np.ndarray:
        return high if shape is None else np.full(shape, high)


def places(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image of rows and columns, and labels that say whether a pixel is in the right half."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([rows, columns]), (columns >= width // 2).to(torch.uint8)


@pytest.mark.parametrize("degrees", [90, 180])
def test_turned_by_right_angles_as_numpy_does(degrees: int) -> None:
    image, target = torch.randn(3, 7, 7), torch.randint(0, 5, (2, 7, 7), dtype=torch.uint8)
    whole = (slice(0, 7), slice(0, 7))
    turned, labels = warped(image, target, whole, degrees, 0, Most())
    times = -degrees // 90  # clockwise
    for found, wanted in ((turned, image), (labels, target)):
        inner = (..., slice(1, -1), slice(1, -1))  # at the edge, rounding says what is outside
        torch.testing.assert_close(found[inner], torch.rot90(wanted, times, (-2, -1))[inner], atol=1e-5, rtol=0)


@given(
    rotate=st.sampled_from([0.0, 30.0, 180.0]),
    elastic=st.sampled_from([0.0, 3.0]),
    top=st.integers(0, 20),
    left=st.integers(0, 20),
    seed=st.integers(0, 99),
)
def test_image_and_labels_move_together(rotate: float, elastic: float, top: int, left: int, seed: int) -> None:
    image, target = places(40, 50)
    window = (slice(top, top + 20), slice(left, left + 30))
    view, labels = warped(image, target, window, rotate, elastic, np.random.default_rng(seed))
    assert view.shape == (2, 20, 30)
    assert view.dtype == torch.float32
    assert labels.dtype == torch.uint8
    inside, clear = labels != VOID, (view[1] - 24.5).abs() > 0.51  # away from where two labels meet
    assert ((view[1] > 24.5) == (labels == 1))[inside & clear].all()
    if not elastic and not rotate:
        torch.testing.assert_close(view, image[(slice(None), *window)])
    if not elastic:  # distances between neighbors are kept
        steps = (view[:, :, 1:] - view[:, :, :-1]).square().sum(0).sqrt()
        torch.testing.assert_close(steps[inside[:, 1:] & inside[:, :-1]].mean(), torch.tensor(1.0), atol=0.05, rtol=0)


def test_what_comes_into_view_is_void() -> None:
    image, target = torch.ones(1, 40, 40), torch.zeros(40, 40, dtype=torch.uint8)
    view, labels = warped(image, target, (slice(0, 40), slice(0, 40)), 45, 0, Most())
    assert (labels[0, 0], labels[20, 20]) == (VOID, 0)
    assert (view[0, 0, 0], view[0, 20, 20]) == (0, 1)


def test_elastic_is_in_pixels() -> None:
    image, target = places(600, 600)
    window = (slice(200, 400), slice(200, 400))
    moved = [
        warped(image, target, window, 0, 5.0, np.random.default_rng(seed))[0] - image[:, 200:400, 200:400]
        for seed in range(30)
    ]
    assert 3.0 < float(torch.stack(moved).std()) < 6.0  # between grid points somewhat less than at them
    largest_step = max(float((each[:, 1:] - each[:, :-1]).abs().max()) for each in moved)
    assert largest_step < 1.0  # smooth: no fold


def test_blur_noise_and_light() -> None:
    image = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (3, 64, 64)).astype(np.float32))
    flat = torch.full((3, 9, 9), 7.0)
    torch.testing.assert_close(blurred(flat, 2.0, Most()), flat)
    assert float(blurred(image, 2.0, Most()).std()) < 0.3 * float(image.std())

    class Normal(Most):
        def standard_normal(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            return np.random.default_rng(1).standard_normal(shape, dtype)

    added = noisy(image, 0.5, Normal()) - image
    torch.testing.assert_close(added.std((1, 2)), 0.5 * image.std((1, 2)), rtol=0.05, atol=0)
    lit = relit(image, 0.2, Most())
    torch.testing.assert_close(lit.std((1, 2)), 1.2 * image.std((1, 2)), rtol=1e-3, atol=0)
    torch.testing.assert_close(lit.mean((1, 2)), image.mean((1, 2)) + 0.3 * image.std((1, 2), correction=0))


@given(name=st.sampled_from(["rotate", "elastic", "blur", "noise", "light"]), seed=st.integers(0, 99))
def test_views_are_functions_of_their_seed(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (33, 47, 3), dtype=np.uint8)
    target = torch.from_numpy(random.integers(0, 4, (33, 47), dtype=np.uint8))
    pixels = Preprocessing((0.5,) * 3, (0.2,) * 3)(image)
    before = pixels.clone()
    view = Augmentation(crop=(16, 60), **{name: 1.0})
    first, second = (view.cut(pixels, target, np.random.default_rng(seed)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(pixels, before)
    assert first[0].shape == (3, 16, 60)
    others = [view.cut(pixels, target, np.random.default_rng(seed + 1 + other))[0] for other in range(3)]
    assert not all(torch.equal(first[0], each) for each in others)


@pytest.mark.parametrize("name", ["rotate", "elastic", "blur", "noise", "light"])
@pytest.mark.parametrize("value", [-1.0, 1e9, float("nan")])
def test_strengths_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"augment\.{name} must be 0 to"):
        Augmentation(**{name: value})
