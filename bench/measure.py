"""Measure the chosen cases in this process: check every candidate, time them in turn, and add memory and floor."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch

from bench import cpu_backend, machine, memory, timing
from bench.cases import Candidate, Case, Problem

BUDGET = {"small": 0.4, "all": 1.5}  # seconds of timing per case, unless five rounds take longer


def check(problem: Problem, candidates: Sequence[Candidate]) -> dict[str, dict[str, Any]]:
    """Run every candidate once against float64: ``{name: {"error": relative error} or {"failed": reason}}``."""
    right = {key: tuple(t.detach() for t in problem.expected[key]()) for key in {c.expected for c in candidates}}
    results: dict[str, dict[str, Any]] = {}
    for candidate in candidates:
        try:
            error = problem.error(candidate.run(), right[candidate.expected])
        except Exception as reason:  # whatever a spelling raises is its result: the others go on
            results[candidate.name] = {"failed": f"{type(reason).__name__}: {str(reason).strip().splitlines()[0]}"}
            continue
        results[candidate.name] = {"error": error}
        if not error <= problem.tolerance:
            results[candidate.name]["failed"] = f"wrong result: error {error:.1e}, allowed {problem.tolerance:.0e}"
    return results


def measure_case(
    case: Case, device: torch.device, backends: Sequence[str], size: str, peak: Callable[..., int] | None
) -> dict[str, Any]:
    """One row of the results."""
    compile = case.compile and size == "all"
    if compile:
        # Else compiled spellings of earlier cases count against the limit of recompilations.
        torch.compiler.reset()
    problem = case.build(device)
    candidates = [c for c in problem.candidates(backends) if compile or not c.name.startswith("torch.compile")]
    checked = check(problem, candidates)
    good = [c for c in candidates if "failed" not in checked[c.name]]
    calls: dict[str, timing.Call] = {c.name: c.run for c in good}
    graphs: dict[str, timing.Call] = {}
    if device.type == "cuda":
        graphs = {name: graph for name, call in calls.items() if (graph := timing.graphed(call)) is not None}
    clock = timing.clock(device)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, time.perf_counter()
    times = {} if case.image_size else timing.compare(calls, clock, BUDGET[size])
    preemptions = (resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before) / (time.perf_counter() - start)
    graph_times = timing.compare(graphs, clock, BUDGET[size]) if graphs and not case.image_size else {}

    rows = {}
    for candidate in candidates:
        name = candidate.name
        row: dict[str, Any] = {"backend": candidate.backend, "eager": candidate.eager, **checked[name]}
        if name in times:
            row["seconds"] = {state: asdict(sample) for state, sample in times[name].items()}
        if name in graph_times:
            row["seconds"]["graph"] = asdict(graph_times[name]["cold"])
        if "failed" not in row and device.type == "cuda":
            row["peak_bytes"] = memory.cuda_peak_of(candidate.run)
        elif "failed" not in row and peak is not None:
            row["peak_bytes"] = peak(case.key, name, tuple(backends))
        rows[name] = row
    return {
        "operator": case.operator,
        "case": case.name,
        "mode": case.mode,
        "headline": case.headline,
        "image_size": case.image_size,
        "compute_dtype": dtype_name(case.compute_dtype),
        "floor": {**asdict(problem.floor), "total_operations": problem.floor.total_operations(device.type)},
        "tolerance": problem.tolerance,
        # How often per second the system took the processor away while timing: others were using the machine.
        "preemptions": 0.0 if case.image_size else preemptions,
        "candidates": rows,
    }


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def measure(
    cases: Sequence[Case],
    device: torch.device,
    backends: Sequence[str],
    size: str,
    with_memory: bool,
    done: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Rows of all cases and the rates of the machine; ``done`` is told each row."""
    machine.use_one_seed_and_full_precision()
    rows = []
    with ExitStack() as stack:
        peak = stack.enter_context(memory.CpuMemory()) if with_memory and device.type == "cpu" else None
        for case in cases:
            rows.append(measure_case(case, device, backends, size, peak))
            done(rows[-1])
    return {
        "copy_bandwidth": machine.copy_bandwidth(device),
        "multiply_add_rate": {
            dtype_name(dtype): machine.multiply_add_rate(device, dtype)
            for dtype in sorted({case.compute_dtype for case in cases}, key=str)
        },
        "cpu_backend": cpu_backend.measure() if device.type == "cpu" and "cpu" in backends else {},
        "rows": rows,
    }
