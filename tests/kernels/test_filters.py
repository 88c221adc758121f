"""bilinear_kernel and rarefy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fcn_kernels import bilinear_kernel, rarefy


@pytest.mark.parametrize(
    ("k", "line"),
    [
        (1, [1.0]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
    ],
)
def test_bilinear_kernel_is_the_published_one(k: int, line: list[float]) -> None:
    want = torch.tensor(line, dtype=torch.float64)
    torch.testing.assert_close(bilinear_kernel(k, dtype=torch.float64), want[:, None] * want)


@given(k=st.integers(1, 70))
def test_bilinear_kernel_follows_the_authors_formula(k: int) -> None:
    factor = (k + 1) // 2
    center = factor - 1 if k % 2 else factor - 0.5
    want = [[(1 - abs(i - center) / factor) * (1 - abs(j - center) / factor) for j in range(k)] for i in range(k)]
    torch.testing.assert_close(bilinear_kernel(k, dtype=torch.float64), torch.tensor(want, dtype=torch.float64))
    assert bilinear_kernel(k).dtype == torch.float32


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7, 8, 16, 32])
def test_bilinear_kernel_keeps_constants(stride: int) -> None:
    k = 2 * stride - stride % 2
    y = F.conv_transpose2d(torch.ones(1, 1, 5, 5), bilinear_kernel(k)[None, None], stride=stride)
    torch.testing.assert_close(
        y[..., stride:-stride, stride:-stride], torch.ones(1, 1, *(y.shape[2] - 2 * stride,) * 2)
    )


def test_rarefy_stuffs_zeros() -> None:
    weight = torch.randn(2, 3, 2, 3)
    rare = rarefy(weight, (3, 2))
    assert rare.shape == (2, 3, 4, 5)
    for i in range(4):
        for j in range(5):
            want = weight[:, :, i // 3, j // 2] if i % 3 == 0 and j % 2 == 0 else torch.zeros(2, 3)
            assert torch.equal(rare[:, :, i, j], want)
    assert torch.equal(rarefy(weight, 1), weight)


def test_rarefy_is_differentiable() -> None:
    weight = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: rarefy(w, (2, 3)), (weight,))


def test_errors() -> None:
    with pytest.raises(ValueError, match="kernel_size must be at least 1, got 0"):
        bilinear_kernel(0)
    with pytest.raises(ValueError, match="dilation must be a number of at least 1, or two, got 0"):
        rarefy(torch.ones(1, 1, 3, 3), 0)
    with pytest.raises(ValueError, match=r"weight must be \[O, I, k, l\], got shape \(3, 3\)"):
        rarefy(torch.ones(3, 3), 2)
