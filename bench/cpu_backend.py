"""What the CPU kernels' speed hangs on besides the case: the instruction set, and PyTorch's threads beside them."""

from __future__ import annotations

from typing import Any

import torch

from bench import timing
from fcn_kernels import upsample_argmax, upsample_cross_entropy
from fcn_kernels.backend import CPU_EXTENSION

ROUNDS = 40


def measure() -> dict[str, Any]:
    """Medians in seconds, of warm calls; empty where the CPU kernels were not built."""
    if CPU_EXTENSION is None:
        return {}
    x, target = torch.randn(2, 21, 64, 64, requires_grad=True), torch.randint(0, 21, (2, 64, 64))
    target = target.repeat_interleave(8, 1).repeat_interleave(8, 2)

    def loss() -> object:
        return torch.autograd.grad(upsample_cross_entropy(x, target, backend="cpu"), x)

    def labels() -> object:
        return upsample_argmax(x.detach(), size=(512, 512), backend="cpu")

    return {
        "instruction_sets": {
            "upsample_cross_entropy, forward + gradient": _by_instruction_set(loss),
            "upsample_argmax": _by_instruction_set(labels),
        },
        "alternating": _alternating(loss),
    }


def _by_instruction_set(call: timing.Call) -> dict[str, float]:
    assert CPU_EXTENSION is not None
    clock, best = timing.CpuClock(), CPU_EXTENSION.isa()
    seconds: dict[str, list[float]] = {isa: [] for isa in CPU_EXTENSION.supported_isas()}
    for _ in range(ROUNDS):
        for isa, times in seconds.items():
            CPU_EXTENSION.use_isa(isa)
            call()
            times.append(clock.time(call))
    CPU_EXTENSION.use_isa(best)
    return {isa: timing.Sample.of(times).median for isa, times in seconds.items()}


def _alternating(ours: timing.Call) -> dict[str, dict[str, float]]:
    """Each of our call and one of PyTorch's, repeated alone and in turn with the other.

    Two OpenMP pools in a process would wait for each other's spinning threads; one shared pool costs nothing.
    """
    clock = timing.CpuClock()
    a, b = torch.randn(640, 640), torch.randn(640, 640)

    def theirs() -> object:
        return a @ b

    calls = {"ours": ours, "PyTorch": theirs}
    seconds: dict[str, dict[str, list[float]]] = {name: {"alone": [], "in turn": []} for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            seconds[name]["alone"].append(clock.time(call))
        for name, call in calls.items():
            seconds[name]["in turn"].append(clock.time(call))
    return {name: {how: timing.Sample.of(times).median for how, times in by.items()} for name, by in seconds.items()}
