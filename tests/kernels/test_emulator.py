"""The emulator of CUDA finds what it is there for: planted faults are reported, and right kernels are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import fcn_kernels
from fcn_kernels import backend as backends
from tests.kernels.conftest import OPERATORS, RUNNABLE

EMULATOR: Any = backends.CUDA_EXTENSION
pytestmark = pytest.mark.skipif(
    not backends.EMULATED or EMULATOR is None, reason="a GPU runs the kernels, or nothing does"
)

ORDERS = ("forward", "reverse", "random")


@pytest.fixture(autouse=True)
def forward_afterwards() -> Iterator[None]:
    yield
    EMULATOR.set_order(EMULATOR.Order.forward)


def planted(fault: str, order: str = "forward", blocks: int = 2) -> tuple[Tensor, Tensor]:
    """What the kernel makes and what it should make."""
    x = torch.arange(64.0 * blocks)
    out = torch.zeros_like(x)
    EMULATOR.set_order(getattr(EMULATOR.Order, order), 3)
    EMULATOR.planted(x, out, getattr(EMULATOR.Fault, fault))
    return out, x.view(blocks, 64).flip(1).flatten()


@pytest.mark.parametrize("order", ORDERS)
def test_a_right_kernel_is_right_in_every_order(order: str) -> None:
    assert torch.equal(*planted("none", order))


def test_a_missing_barrier_shows() -> None:
    results = {order: planted("race", order) for order in ORDERS}
    assert not any(torch.equal(*result) for result in results.values())
    assert not torch.equal(results["forward"][0].isnan(), results["reverse"][0].isnan())


def test_a_write_behind_the_end_is_reported() -> None:
    with pytest.raises(RuntimeError, match="planted: wrote behind the end of out"):
        planted("outside")


def test_a_barrier_that_a_thread_does_not_reach_is_reported() -> None:
    where = r"waits at __syncthreads in emulator/planted.cpp:\d+, which thread \(7, 0, 0\) does not reach: it has ended"
    with pytest.raises(RuntimeError, match=r"planted: block \(1, 0, 0\), thread \(0, 0, 0\) " + where):
        planted("divergence")


def test_a_lane_that_stays_away_from_a_shuffle_is_reported() -> None:
    with pytest.raises(RuntimeError, match=r"__shfl_xor_sync in emulator/planted.cpp:\d+, which thread \(3, 0, 0\)"):
        planted("lane")


def test_an_access_that_is_not_aligned_is_reported() -> None:
    with pytest.raises(RuntimeError, match=r"thread \(1, 0, 0\): an access of 16 bytes is not aligned"):
        planted("alignment")


def test_shared_memory_that_nobody_wrote_is_poison() -> None:
    out, want = planted("unset")
    assert out.isnan().nonzero().flatten().tolist() == [58, 122]
    assert torch.equal(out[~out.isnan()], want[~out.isnan()])


def test_a_fault_leaves_nothing_behind() -> None:
    with pytest.raises(RuntimeError):
        planted("divergence")
    assert torch.equal(*planted("none"))


def test_what_no_gpu_can_launch_is_refused() -> None:
    x = torch.ones(63)  # not one block
    with pytest.raises(RuntimeError, match=r"planted: a GPU cannot launch grid \(0, 1, 1\)"):
        EMULATOR.planted(x, x.clone(), EMULATOR.Fault.none)


def results(operator: str, layout: torch.memory_format) -> list[Tensor]:
    """Result and gradients of an operator's CUDA kernels, on shapes that leave blocks and strips partly empty."""
    torch.manual_seed(5)
    x, weight, skip = torch.randn(2, 9, 7, 11), torch.randn(9, 1, 4, 4), torch.randn(2, 9, 13, 21)
    x, skip = (t.contiguous(memory_format=layout).requires_grad_() for t in (x, skip))
    target = torch.randint(0, 9, (2, 7, 11) if operator == "cross_entropy" else (2, 40, 50), dtype=torch.uint8)
    function = getattr(fcn_kernels, operator)
    if operator == "upsample_argmax":
        return list(function(x, size=(40, 50), confidence=True, backend="cuda"))
    if operator == "dilated_conv2d":
        leaves, options = [x, torch.randn(4, 9, 3, 3, requires_grad=True)], {"dilation": 2, "padding": 2}
    elif operator == "conv_transpose_add":
        leaves, options = [x, weight.requires_grad_(), skip], {"stride": 2, "crop": 1}
    elif operator == "upsample_add":
        leaves, options = [x, skip], {}
    else:
        leaves, options = [x], {"target": target}
    out = function(*leaves, **options, backend="cuda")
    if operator == "upsample_region_sums":
        out = torch.stack(out)
    return [out, *torch.autograd.grad(out.square().sum(), leaves)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("operator", OPERATORS if "cuda" in RUNNABLE else [])
def test_kernels_do_not_depend_on_the_order_of_threads(operator: str, layout: torch.memory_format) -> None:
    made = {}
    for order in ORDERS:
        EMULATOR.set_order(getattr(EMULATOR.Order, order), 11)
        made[order] = results(operator, layout)
    for order in ORDERS[1:]:
        for a, b in zip(made["forward"], made[order], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("approximation", ["random", "high", "low"])
@pytest.mark.parametrize("operator", ["cross_entropy", "upsample_argmax", "upsample_cross_entropy"])
def test_approximations_are_off_by_no_more_than_a_gpus(operator: str, approximation: str) -> None:
    """They change results, the same way each time, and by little: a patch multiplies 64 exponentials at most."""
    before = EMULATOR.approximation()
    try:
        EMULATOR.set_approximation(EMULATOR.Approximation.exact)
        exact = results(operator, torch.contiguous_format)
        EMULATOR.set_approximation(getattr(EMULATOR.Approximation, approximation))
        made, again = (results(operator, torch.contiguous_format) for _ in range(2))
    finally:
        EMULATOR.set_approximation(before)
    assert all(map(torch.equal, made, again))
    assert not all(map(torch.equal, exact, made))
    for a, b in zip(exact, made, strict=True):
        a, b = a.detach().double(), b.detach().double()
        assert float((a - b).abs().max() / a.abs().max()) < 2 * 64 * 2**-22  # itself, and the sum that it is divided by
