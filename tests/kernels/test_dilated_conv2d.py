"""dilated_conv2d: against rarefied filters and a split into phases, neither of which dilates anything."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import dilated_conv2d, rarefy
from tests.strategies import DTYPES, LAYOUTS, assert_as_good_as_torch, with_layout

BACKENDS = ("reference", "cpu")  # PyTorch's convolution in both: what is tested is the use made of it


def space_to_batch(x: Tensor, weight: Tensor, dilation: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Each of the d x d phases of the padded input, convolved densely on its own."""
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    reach = [dilation[axis] * (weight.shape[2 + axis] - 1) for axis in (0, 1)]
    out = x.new_full((x.shape[0], weight.shape[0], x.shape[2] - reach[0], x.shape[3] - reach[1]), torch.nan)
    for i in range(min(dilation[0], out.shape[2])):
        for j in range(min(dilation[1], out.shape[3])):
            out[:, :, i :: dilation[0], j :: dilation[1]] = F.conv2d(
                x[:, :, i :: dilation[0], j :: dilation[1]], weight
            )
    return out


@given(data=st.data())
def test_is_a_dense_convolution_of_every_phase_and_of_the_rarefied_filter(data: st.DataObject) -> None:
    draw = data.draw
    dilation, padding = (
        (draw(st.integers(1, 5)), draw(st.integers(1, 5))),
        (draw(st.integers(0, 6)), draw(st.integers(0, 6))),
    )
    k = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    least = [max(1, dilation[axis] * (k[axis] - 1) + 1 - 2 * padding[axis]) for axis in (0, 1)]
    size = [low + draw(st.integers(0, 12)) for low in least]
    x = torch.randn(draw(st.integers(0, 3)), draw(st.integers(1, 5)), *size, dtype=torch.float64)
    x = with_layout(x, draw(st.sampled_from(LAYOUTS)))
    weight = torch.randn(draw(st.integers(1, 6)), x.shape[1], *k, dtype=torch.float64)
    bias = torch.randn(weight.shape[0], dtype=torch.float64) if draw(st.booleans()) else None
    relu = draw(st.booleans())
    want = space_to_batch(x, weight, dilation, padding)
    torch.testing.assert_close(F.conv2d(x, rarefy(weight, dilation), padding=padding), want)
    want = want if bias is None else want + bias[:, None, None]
    want = want.clamp(min=0) if relu else want
    for backend in BACKENDS:
        got = dilated_conv2d(x, weight, bias, dilation=dilation, padding=padding, relu=relu, backend=backend)
        torch.testing.assert_close(got, want)


@given(data=st.data())
def test_forward_and_backward_in_every_dtype(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    dilation, relu = data.draw(st.sampled_from((1, 2, 3, 12))), data.draw(st.booleans())
    x = with_layout(torch.randn(2, 5, 9, 11, dtype=torch.float64).to(dtype), data.draw(st.sampled_from(LAYOUTS)))
    tensors = [x, torch.randn(4, 5, 3, 3).to(dtype), torch.randn(4).to(dtype)]
    upstream = torch.randn(2, 4, 9, 11).to(dtype)
    # Which side of zero ReLU's argument falls on must not hang on rounding.
    exact = dilated_conv2d(*(t.double() for t in tensors), dilation=dilation, padding=dilation)
    upstream *= exact.abs() > 0.1

    def run(which: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [t.detach().to(dtype).requires_grad_() for t in tensors]
        out = dilated_conv2d(*leaves, dilation=dilation, padding=dilation, relu=relu, backend=which)
        return out.detach(), *torch.autograd.grad(out, leaves, upstream.to(dtype))

    ours, torchs, oracle = run("cpu", dtype), run("reference", dtype), run("reference", torch.float64)
    for name, a, b, c in zip(("out", "grad x", "grad weight", "grad bias"), ours, torchs, oracle, strict=True):
        assert a.dtype == dtype
        # Sums may cancel: what is rounded is as large as a typical sum of the terms.
        assert_as_good_as_torch(a, b, c, name, scale=1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dilation", [1, 3])
def test_cpu_returns_channels_last(dtype: torch.dtype, dilation: int) -> None:
    x, weight = torch.randn(2, 3, 8, 9).to(dtype), torch.randn(4, 3, 3, 3).to(dtype)
    assert dilated_conv2d(x, weight, dilation=dilation, backend="cpu").is_contiguous(memory_format=torch.channels_last)


def test_gradcheck() -> None:
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((1, 2, 5, 6), (3, 2, 2, 3), (3,))]
    for backend in BACKENDS:
        for relu in (False, True):
            assert torch.autograd.gradcheck(
                lambda *t, b=backend, r=relu: dilated_conv2d(*t, dilation=(3, 2), padding=(1, 2), relu=r, backend=b),
                tensors,
            )


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_left_as_they_are(backend: str) -> None:
    tensors = [torch.randn(1, 2, 5, 5), torch.randn(2, 2, 1, 1), torch.randn(2)]
    before = [t.clone() for t in tensors]
    dilated_conv2d(*tensors, relu=True, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_autocast_casts() -> None:
    x, weight = torch.randn(1, 3, 6, 6), torch.randn(2, 3, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dilated_conv2d(x.bfloat16(), weight, torch.randn(2)).dtype == torch.bfloat16
