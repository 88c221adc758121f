"""Hypothesis strategies for operators, and how closely results must agree: shared by all backends' tests."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from fcn_kernels import BilinearGrid, CoordMap
from fcn_kernels.backend import why_not

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TARGET_DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)
LAYOUTS = ("contiguous", "channels_last", "sliced", "expanded")
SCORES = ("normal", "small", "large", "wide", "huge", "constant", "one_class_high", "equal_classes")


def dtypes_of(backend: str) -> tuple[torch.dtype, ...]:
    """The dtypes that ``backend`` has kernels for."""
    return tuple(dtype for dtype in DTYPES if why_not(backend, dtype=dtype) is None)


@st.composite
def grids(draw: st.DrawFn, input_size: tuple[int, int], largest: int = 40) -> BilinearGrid:
    """Every kind of sampling: both conventions of F.interpolate, FCN's strides with crops, and odd affine maps; outputs
    of up to ``largest`` rows and columns."""
    kind = draw(st.sampled_from(("interpolate", "align_corners", "transposed", "affine")))
    size = (draw(st.integers(1, largest)), draw(st.integers(1, largest)))
    if kind == "transposed":
        stride = draw(st.sampled_from((1, 2, 3, 4, 5, 8, 11, 16)))
        # Sizes beyond what the input feeds are allowed: zeros there.
        return BilinearGrid.transposed(stride, draw(st.integers(0, 2 * stride)), size)
    if kind == "affine":
        axes = [
            CoordMap(
                Fraction(draw(st.integers(1, 30)), draw(st.integers(1, 24))),
                Fraction(draw(st.integers(-60, 60)), draw(st.integers(1, 12))),
            )
            for _ in range(2)
        ]
        return BilinearGrid.from_maps(size, *axes, draw(st.sampled_from(("zeros", "clamp"))))
    return BilinearGrid.interpolate(input_size, size, align_corners=kind == "align_corners")


@st.composite
def scores(
    draw: st.DrawFn,
    *,
    max_classes: int = 23,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    kinds: tuple[str, ...] = SCORES,
    min_images: int = 0,
    max_images: int = 3,
) -> Tensor:
    """Coarse scores ``[N, C, h, w]``, empty batches and single pixels included."""
    shape = (
        draw(st.integers(min_images, max_images)),
        draw(st.integers(1, max_classes)),
        draw(st.integers(1, 9)),
        draw(st.integers(1, 20)),
    )
    dtype = draw(st.sampled_from(dtypes))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    x = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
    kind = draw(st.sampled_from(kinds))
    if kind == "small":
        x *= 0.01
    elif kind == "large":
        x *= 12
    elif kind == "wide":  # some cells beyond the range of the fast path, some within
        x *= torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu") ** 8 * 300
    elif kind == "huge":
        x = x.sign() * 1e4
    elif kind == "constant":
        x = torch.full_like(x, 1.5)
    elif kind == "one_class_high":
        x[:, 0] += 1000
    elif kind == "equal_classes":
        x = x[:, :1].expand(shape).clone()
    return with_layout(x.to(torch.get_default_device(), dtype), draw(st.sampled_from(LAYOUTS)))


def with_layout(x: Tensor, layout: str) -> Tensor:
    """The same values stored another way."""
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        outer = x.new_full((x.shape[0], x.shape[1] + 1, x.shape[2] + 2, x.shape[3] + 3), torch.nan)
        inner = outer[:, 1:, 1:-1, 2:-1]
        inner.copy_(x)
        return inner
    if layout == "expanded" and x.shape[0] > 0:
        return x[:1].expand(x.shape)
    return x.contiguous()


def far_apart(x: Tensor) -> Tensor:
    """The same values with images more than 2^31 numbers apart (most of which take no memory: nobody touches them)."""
    n, c, h, w = x.shape
    stride = 2**31 + 8
    if x.is_cuda:  # where memory is taken at once
        free, wanted = torch.cuda.mem_get_info(x.device)[0], ((n - 1) * stride + c * h * w) * x.element_size()
        if wanted > free:
            pytest.skip(f"{wanted / 1e9:.1f} GB are wanted for one tensor, and {free / 1e9:.1f} GB are free")
    outer = x.new_empty((n - 1) * stride + c * h * w).as_strided(x.shape, (stride, h * w, w, 1))
    return outer.copy_(x)


@st.composite
def targets(draw: st.DrawFn, images: int, classes: int, size: tuple[int, int], ignore_index: int) -> Tensor:
    """Labels: noise or patches, with none, some or all pixels ignored."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(TARGET_DTYPES if 0 <= ignore_index < 256 else TARGET_DTYPES[1:]))
    patch = draw(st.sampled_from((1, 5, 100)))
    coarse = (images, -(-size[0] // patch), -(-size[1] // patch))
    labels = torch.randint(0, classes, coarse, generator=generator, device="cpu")
    labels = labels.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, : size[0], : size[1]].contiguous()
    ignored = draw(st.sampled_from((0.0, 0.0, 0.1, 1.0)))
    labels[torch.rand(labels.shape, generator=generator, device="cpu") < ignored] = ignore_index
    labels = labels.to(torch.get_default_device(), dtype)
    if draw(st.booleans()):  # rows and columns that are not next to each other
        outer = torch.full((images, size[0] + 1, 2 * size[1]), 77, dtype=dtype)
        outer[:, 1:, ::2] = labels
        return outer[:, 1:, ::2]
    return labels


def fenced(shape: tuple[int, ...], dtype: torch.dtype, layout: str = "contiguous") -> tuple[Tensor, Tensor]:
    """An output to write into, poisoned, inside a buffer of sentinels: (output, buffer). See ``assert_fences_hold``."""
    count = int(torch.Size(shape).numel())
    poison = torch.nan if dtype.is_floating_point else 113
    buffer = torch.full((count + 128,), 77, dtype=dtype)
    buffer[64 : 64 + count] = poison
    if layout == "channels_last":
        n, c, h, w = shape
        return buffer[64 : 64 + count].view(n, h, w, c).permute(0, 3, 1, 2), buffer
    return buffer[64 : 64 + count].view(shape), buffer


def assert_fences_hold(buffer: Tensor) -> None:
    edges = torch.cat((buffer[:64], buffer[-64:]))
    assert bool((edges == 77).all()), "written outside the output"


def assert_as_good_as_torch(ours: Tensor, torchs: Tensor, oracle: Tensor, what: str, scale: float = 0.0) -> None:
    """The error of ``ours`` against the float64 ``oracle`` is at most twice PyTorch's own in that dtype, plus some eps.

    Errors are relative to the oracle's largest magnitude, or to ``scale`` if that is larger.
    """
    assert ours.shape == oracle.shape, (what, ours.shape, oracle.shape)
    if oracle.numel() == 0:
        return
    magnitude = max(float(oracle.abs().max()), scale, 1e-30)
    error = float((ours.double() - oracle).abs().max()) / magnitude
    roundings = 32 if ours.dtype == torch.float64 else 8  # the oracle rounds as well, its coordinates above all
    allowed = 2 * float((torchs.double() - oracle).abs().max()) / magnitude + roundings * torch.finfo(ours.dtype).eps
    assert error <= allowed, f"{what}: error {error:.2e}, allowed {allowed:.2e}"
