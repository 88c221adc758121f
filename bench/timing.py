"""How long calls take: candidates in turn, each first with cold caches and then warm.

Every round gives every candidate one turn, so that a slow minute of the machine hits all of them. In its turn a
candidate is called twice: once after 64 MB (on a GPU: 256 MB) have been touched, untimed ("cold"), and once more at
once ("warm"). The figure is the median over the rounds; the spread is the distance between the quartiles.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Call = Callable[[], object]

MIN_ROUNDS, MAX_ROUNDS = 5, 30


@dataclass(frozen=True)
class Sample:
    """Seconds: median and quartiles of ``rounds`` calls."""

    median: float
    q1: float
    q3: float
    rounds: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Sample:
        q1, median, q3 = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, q1, q3, len(seconds))


class CpuClock:
    def __init__(self) -> None:
        self.buffer = torch.zeros(2**24)

    def evict(self) -> None:
        self.buffer.add_(1)

    def time(self, call: Call) -> float:
        start = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - start
        del result  # freed outside the timed span
        return seconds


class CudaClock:
    def __init__(self) -> None:
        self.buffer = torch.zeros(2**26, device="cuda")
        self.start: Any = torch.cuda.Event(enable_timing=True)
        self.end: Any = torch.cuda.Event(enable_timing=True)

    def evict(self) -> None:
        # Also gives the processor time to queue the call, so that its launch is not timed.
        self.buffer.zero_()

    def time(self, call: Call) -> float:
        self.start.record()
        result = call()
        self.end.record()
        self.end.synchronize()
        del result
        return float(self.start.elapsed_time(self.end)) / 1e3


def clock(device: torch.device) -> CpuClock | CudaClock:
    return CudaClock() if device.type == "cuda" else CpuClock()


def graphed(call: Call) -> Call | None:
    """The call as a CUDA graph (no launch cost: what short kernels take), or None where it cannot be captured."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    try:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            result = call()
    except RuntimeError:
        torch.cuda.synchronize()
        return None

    def replay() -> object:
        graph.replay()
        return result  # keeps the memory of the graph's outputs

    return replay


def compare(calls: dict[str, Call], clock: Any, budget: float) -> dict[str, dict[str, Sample]]:
    """``{name: {"cold": Sample, "warm": Sample}}`` within about ``budget`` seconds, but at least five rounds.

    The first round is not counted; it warms up and says how many rounds fit.
    """
    names = list(calls)
    seconds: dict[str, dict[str, list[float]]] = {name: {"cold": [], "warm": []} for name in names}

    def turn(name: str) -> None:
        clock.evict()
        seconds[name]["cold"].append(clock.time(calls[name]))
        seconds[name]["warm"].append(clock.time(calls[name]))

    start = time.perf_counter()
    for name in names:
        turn(name)
        for times in seconds[name].values():
            times.clear()
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, int(budget / (time.perf_counter() - start))))
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            turn(name)
    return {name: {state: Sample.of(times) for state, times in states.items()} for name, states in seconds.items()}
