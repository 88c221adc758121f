"""What shapes alone do not reach: every tile, split and path of the CUDA kernels, in every order of threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fcn_kernels import backend as backends
from fcn_kernels import cross_entropy
from fcn_kernels.backend import EMULATED, implementation, why_not
from tests.kernels.conftest import device_of
from tests.strategies import assert_as_good_as_torch, with_layout

CUDA_EXTENSION: Any = backends.CUDA_EXTENSION
pytestmark = pytest.mark.skipif(why_not("cuda") is not None, reason=f"CUDA kernels cannot run: {why_not('cuda')}")


@pytest.fixture(autouse=True)
def default_device() -> Iterator[None]:
    with torch.device(device_of("cuda")):
        yield


def in_every_order(run: Any) -> tuple[Tensor, ...]:
    """The results of ``run``, the same whatever the order in which the emulator gives threads their turns."""
    results: tuple[Tensor, ...] = run()
    if EMULATED:
        order = CUDA_EXTENSION.Order
        for other in (order.reverse, order.random):
            CUDA_EXTENSION.set_order(other)
            try:
                again = run()
            finally:
                CUDA_EXTENSION.set_order(order.forward)
            assert all(torch.equal(a, b) for a, b in zip(results, again, strict=True))
    return results


def rounded_to_tf32(x: Tensor) -> Tensor:
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


@pytest.mark.parametrize(("tile", "split"), [((64, 64), (64, 1)), ((128, 64), (64, 3)), ((128, 128), (128, 2))])
@pytest.mark.parametrize("numbers", ["float32", "tf32", "bfloat16", "float16"])
def test_dilated_conv2d(
    numbers: str, tile: tuple[int, int], split: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Channels that fill chunks of 16 bytes and not the tiles; rectangles of pixels that see only some taps."""
    kernels = implementation("dilated_conv2d", "cuda")
    monkeypatch.setattr(kernels, "tile", lambda *_: tile)
    monkeypatch.setattr(kernels, "split", lambda *_: split)
    monkeypatch.setattr(kernels, "tf32_allowed", lambda: numbers == "tf32")
    dtype = torch.float32 if numbers == "tf32" else getattr(torch, numbers)
    x, weight, grad = (
        torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
        for shape in ((2, 24, 13, 18), (72, 24, 3, 2), (2, 72, 13, 20))
    )
    bias, options = torch.randn(72).to(dtype), {"dilation": [5, 6], "padding": [5, 4]}

    def run() -> tuple[Tensor, ...]:
        out, grad_x, grad_weight = (torch.full_like(t, torch.nan) for t in (grad, x, weight))
        kernels.dilated_conv2d(x, weight, bias, True, *options.values(), out)
        kernels.dilated_conv2d_backward_x(grad, weight, *options.values(), grad_x)
        kernels.dilated_conv2d_backward_weight(grad, x, *options.values(), grad_weight)
        return out, grad_x, grad_weight

    def torchs(dtype: torch.dtype) -> tuple[Tensor, ...]:
        # What is left of numbers in tf32 is multiplied exactly, so that only sums round.
        inputs = [rounded_to_tf32(t) if numbers == "tf32" else t for t in (x, weight, grad)]
        a, b, upstream = (t.to(dtype).requires_grad_() for t in inputs)
        y = F.conv2d(a, b, **options)  # type: ignore[arg-type]
        return (y + bias.to(dtype)[:, None, None]).relu(), *torch.autograd.grad(y, (a, b), upstream)

    for ours, theirs, oracle in zip(in_every_order(run), torchs(dtype), torchs(torch.float64), strict=True):
        assert_as_good_as_torch(ours, theirs, oracle, "result")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 16, 24, 32, 37, 64, 1700])
def test_cross_entropy(classes: int, dtype: torch.dtype, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that fit in registers, in shared memory, or neither; more pixels than blocks take at once."""
    monkeypatch.setattr(implementation("cross_entropy", "cuda"), "MOST_BLOCKS", 2)
    x = with_layout((3 * torch.randn(2, classes, 11, 12)).to(dtype), layout)
    target, weight = torch.randint(0, classes, (2, 11, 12)), torch.rand(classes)
    options = {"label_smoothing": 0.1, "ignore_index": 1}

    def run(backend: str = "cuda", dtype: torch.dtype = dtype) -> tuple[Tensor, ...]:
        leaf = x.detach() if dtype == x.dtype else x.to(dtype)
        loss = cross_entropy(leaf.requires_grad_(), target, weight, backend=backend, **options)  # type: ignore[arg-type]
        return loss.detach(), *torch.autograd.grad(loss, leaf)

    results = in_every_order(run), run("reference"), run("reference", torch.float64)
    for ours, theirs, oracle in zip(*results, strict=True):
        assert_as_good_as_torch(ours, theirs, oracle, "result")


@pytest.mark.skipif(not EMULATED, reason="the emulator alone has as much shared memory as a test says")
@pytest.mark.parametrize("kibibytes", [48, 99, 163, 227])
@pytest.mark.parametrize("classes", [150, 760, 800, 1400])
def test_cross_entropy_fits_the_shared_memory_of_any_gpu(classes: int, kibibytes: int) -> None:
    """A consumer's GPU, an A100, an H100: many classes in channels_last take another kernel where they do not fit."""
    x = torch.randn(1, classes, 5, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    target = torch.randint(0, classes, (1, 5, 9))
    want = torch.autograd.grad(F.cross_entropy(x, target), x)
    CUDA_EXTENSION.set_most_shared(kibibytes << 10)
    try:
        got = torch.autograd.grad(cross_entropy(x, target, backend="cuda"), x)
    finally:
        CUDA_EXTENSION.set_most_shared()
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-8)
