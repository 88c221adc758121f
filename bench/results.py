"""The results of a run: one JSON from one measurement per allocator, and the numbers derived from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Results = dict[str, Any]
Row = dict[str, Any]

PREEMPTIONS = 25.0  # per second and thread; an idle machine shows a few


def merge(description: dict[str, Any], measured: dict[str, dict[str, Any]], absent: dict[str, str]) -> Results:
    """Results from what ``bench.measure.measure`` gave under each allocator.

    Each candidate's ``seconds`` become ``{allocator: {"cold": ..., "warm": ...}}``. The floor is computed with the
    fastest rates that were measured under any allocator.
    """
    bandwidth = max(m["copy_bandwidth"] for m in measured.values())
    dtypes = next(iter(measured.values()))["multiply_add_rate"]
    rates = {dtype: max(m["multiply_add_rate"][dtype] for m in measured.values()) for dtype in dtypes}
    rows = []
    for versions in zip(*(m["rows"] for m in measured.values()), strict=True):
        row = dict(versions[0])
        floor = row["floor"]
        limits = {
            "bytes": floor["bytes"] / bandwidth,
            "operations": floor["total_operations"] / rates[row["compute_dtype"]],
        }
        row["floor"] = {**floor, "limits": limits, "seconds": max(limits.values())}
        row["preemptions"] = {a: v["preemptions"] for a, v in zip(measured, versions, strict=True)}
        row["candidates"] = {
            name: _merge_candidate({a: v["candidates"][name] for a, v in zip(measured, versions, strict=True)})
            for name in row["candidates"]
        }
        rows.append(row)
    return {
        **description,
        "allocators": list(measured),
        "copy_bandwidth": bandwidth,
        "multiply_add_rate": rates,
        "absent": absent,
        "cpu_backend": list(measured.values())[-1]["cpu_backend"],
        "rows": rows,
    }


def _merge_candidate(by_allocator: dict[str, dict[str, Any]]) -> dict[str, Any]:
    merged = {key: value for one in by_allocator.values() for key, value in one.items() if key != "seconds"}
    merged["seconds"] = {a: one["seconds"] for a, one in by_allocator.items() if "seconds" in one}
    return merged


def save(path: Path, results: Results) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(temporary, path)


def load(path: Path) -> Results:
    """Raises ``ValueError`` naming the file if it is not what ``save`` wrote."""
    try:
        results = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not readable as results of bench/run.py: {error}") from error
    if not isinstance(results, dict) or "rows" not in results or "allocators" not in results:
        raise ValueError(f"{path}: not results of bench/run.py (it has no rows or no allocators)")
    return results


def seconds(candidate: dict[str, Any], allocator: str, state: str = "cold") -> float | None:
    """Median time of a candidate, or None where it did not run."""
    sample = candidate["seconds"].get(allocator, {}).get(state)
    return None if sample is None else float(sample["median"])


def honest_allocator(results: Results) -> str:
    """The last measured: "tuned" where it was."""
    return str(results["allocators"][-1])


def timed_rows(results: Results) -> list[Row]:
    return [row for row in results["rows"] if row["image_size"] is None]


def ours(row: Row) -> dict[str, dict[str, Any]]:
    return {name: c for name, c in row["candidates"].items() if c["backend"] is not None}


def strongest_baseline(row: Row, allocator: str, state: str = "cold") -> tuple[str, float] | None:
    """Name and median time of the fastest baseline."""
    times = [
        (time, name)
        for name, c in row["candidates"].items()
        if c["backend"] is None and (time := seconds(c, allocator, state)) is not None
    ]
    if not times:
        return None
    time, name = min(times)
    return name, time


def eager_baseline(row: Row, allocator: str, state: str = "cold") -> tuple[str, float] | None:
    """Name and median time of the spelling that most people write."""
    for name, c in row["candidates"].items():
        if c["eager"] and (time := seconds(c, allocator, state)) is not None:
            return name, time
    return None


def ratio(baseline: tuple[str, float] | None, time: float | None) -> float | None:
    """How many times faster than the baseline."""
    return None if baseline is None or time is None else baseline[1] / time


def failures(results: Results) -> list[str]:
    """Candidates that did not run or gave a wrong result, in words."""
    return [
        f"{row['operator']}, {row['case']}, {row['mode']}: {name}: {c['failed']}"
        for row in results["rows"]
        for name, c in row["candidates"].items()
        if "failed" in c
    ]


def serious(results: Results) -> bool:
    """Whether some result was wrong, or an implementation of this project failed (a baseline may be unavailable)."""
    return any(
        "failed" in c and (c["backend"] is not None or c["failed"].startswith("wrong result"))
        for row in results["rows"]
        for c in row["candidates"].values()
    )


def disturbed(results: Results) -> list[str]:
    """Rows during whose timing other programs kept taking the processors away, so that their figures are doubtful."""
    return [
        f"{row['operator']}, {row['case']}, {row['mode']} ({allocator})"
        for row in timed_rows(results)
        for allocator, rate in row["preemptions"].items()
        if rate > PREEMPTIONS * results["machine"]["threads"]
    ]


def machine_line(results: Results) -> str:
    machine, versions = results["machine"], results["versions"]
    where = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} threads, {machine['vector_instructions']}"
    return f"{where}, torch {versions['torch']}, {results['date'][:10]}, commit {results['commit'] or 'unknown'}"
