"""What only a GPU can show: graphs, streams, no waiting for the device, memory, tensors of more than 2^31 numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fcn_kernels
from fcn_kernels import BilinearGrid, cross_entropy, upsample_add, upsample_argmax, upsample_cross_entropy
from tests.kernels.conftest import OPERATORS, RUNNABLE, WORKSPACE_OF_LOSS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here")

CASES = [
    (operator, backend, layout)
    for operator in OPERATORS
    for backend in RUNNABLE
    if backend != "cpu"
    for layout in (torch.contiguous_format, torch.channels_last)
]
over_cases = pytest.mark.parametrize(("operator", "backend", "layout"), CASES)


def problem(
    operator: str, backend: str, layout: torch.memory_format, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], Callable[[], list[Tensor]]]:
    """The floating-point inputs of a call, and the call: its result and gradients."""
    generator = torch.Generator("cuda").manual_seed(7)

    def random(*shape: int) -> Tensor:
        x = torch.randn(shape, generator=generator, device="cuda").to(dtype)
        return (x.contiguous(memory_format=layout) if x.dim() == 4 else x).requires_grad_()

    x, function = random(2, 24, 32, 40), getattr(fcn_kernels, operator)
    size = (32, 40) if operator == "cross_entropy" else (256, 320)
    target = torch.randint(0, 24, (2, *size), generator=generator, device="cuda", dtype=torch.uint8)
    inputs, options = {
        "conv_transpose_add": ([x, random(24, 1, 4, 4), random(2, 24, 64, 80)], {"stride": 2, "crop": 1}),
        "cross_entropy": ([x], {"target": target}),
        "dilated_conv2d": ([x, random(16, 24, 3, 3), random(16)], {"dilation": 4, "padding": 4}),
        "upsample_add": ([x, random(2, 24, 64, 80)], {}),
        "upsample_argmax": ([x], {"size": size}),
        "upsample_cross_entropy": ([x], {"target": target}),
        "upsample_region_sums": ([x], {"target": target}),
    }[operator]

    def call() -> list[Tensor]:
        out = function(*inputs, **options, backend=backend)
        if operator == "upsample_region_sums":
            out = torch.stack(out)
        if not out.requires_grad:
            return [out]
        return [out.detach(), *torch.autograd.grad(out.float().square().sum(), inputs)]

    return inputs, call


@over_cases
def test_a_graph_replays_it(operator: str, backend: str, layout: torch.memory_format) -> None:
    inputs, call = problem(operator, backend, layout)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = call()
    with torch.no_grad():
        for x in inputs:
            x.copy_(torch.randn_like(x))
    graph.replay()
    for got, want in zip(made, call(), strict=True):
        assert torch.equal(got, want)


@over_cases
def test_nothing_waits_for_the_device(operator: str, backend: str, layout: torch.memory_format) -> None:
    _, call = problem(operator, backend, layout)
    call()  # what is compiled and looked up at first use
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@over_cases
def test_the_current_stream_is_used(operator: str, backend: str, layout: torch.memory_format) -> None:
    inputs, call = problem(operator, backend, layout)
    want, values = call(), [x.detach().clone() for x in inputs]
    with torch.no_grad():
        for x in inputs:
            x.zero_()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()), torch.no_grad():
        torch.cuda._sleep(50_000_000)  # a kernel on another stream would not wait for it, and see zeros
        for x, value in zip(inputs, values, strict=True):
            x.copy_(value)
        with torch.enable_grad():
            got = call()
    torch.cuda.synchronize()
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


@over_cases
def test_memory_is_results_and_little_else(operator: str, backend: str, layout: torch.memory_format) -> None:
    """Workspaces stay below the largest of inputs and results, or a few times the scores that a loss is made from."""
    inputs, call = problem(operator, backend, layout)
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    made = call()
    results, most = sum(t.nbytes for t in made), max(t.nbytes for t in [*inputs, *made])
    if operator == "upsample_cross_entropy":
        most = WORKSPACE_OF_LOSS * inputs[0].nbytes
    upstream = 2 * made[0].nbytes  # the square and its gradient, which the test itself makes
    assert torch.cuda.max_memory_allocated() - before <= results + upstream + most + (1 << 20)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in RUNNABLE if name != "cpu"])
def test_more_than_2_to_the_31_numbers(backend: str) -> None:
    """4.3e9 numbers in bfloat16: windows of the result are compared with the reference."""
    x = torch.randn(1, 16, 2048, 2048, device="cuda").bfloat16()
    size = (16384, 16384)
    out = upsample_add(x, size=size, backend=backend)
    assert out.numel() > 2**32 - 1
    for top, left in ((0, 0), (8192, 4096), (16384 - 64, 16384 - 64)):
        grid = BilinearGrid((64, 64), (4096, 4096), (4096 * top - 14336, 4096 * left - 14336), (32768, 32768), "clamp")
        want = upsample_add(x, grid=grid, backend="reference")
        torch.testing.assert_close(out[:, :, top : top + 64, left : left + 64], want)
    labels = upsample_argmax(out[:, :, :8192], size=(8192, 16384), backend=backend)
    assert torch.equal(labels, out[:, :, :8192].argmax(1).to(torch.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in RUNNABLE if name != "cpu"])
def test_losses_of_more_than_2_to_the_31_logits(backend: str) -> None:
    logits = torch.randn(4, 33, 4096, 4096, device="cuda", dtype=torch.bfloat16).requires_grad_()
    target = torch.randint(0, 33, (4, 4096, 4096), device="cuda", dtype=torch.uint8)
    assert logits.numel() > 2**31
    loss = cross_entropy(logits, target, reduction="sum", backend=backend)
    (grad,) = torch.autograd.grad(loss, logits)
    last = logits.detach()[3:, :, -8:].float().requires_grad_()
    want = torch.nn.functional.cross_entropy(last, target[3:, -8:].long(), reduction="sum")
    (want_grad,) = torch.autograd.grad(want, last)
    torch.testing.assert_close(grad[3:, :, -8:].float(), want_grad, rtol=1e-2, atol=1e-2)
    x = torch.randn(4, 33, 512, 512, device="cuda", requires_grad=True)
    (grad_x,) = torch.autograd.grad(upsample_cross_entropy(x, target, reduction="sum", backend=backend), x)
    assert bool(grad_x.isfinite().all())
