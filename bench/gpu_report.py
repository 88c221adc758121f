"""A table in Markdown of what bench/gpu_measure.py wrote, however far it came.

python bench/gpu_report.py build/gpu/first.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The lines that are whole, and how many are not (the last, where it was cut off)."""
    lines, broken = [], 0
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(dict(json.loads(text)))
        except ValueError:
            broken += 1
    return lines, broken


def microseconds(candidate: dict[str, Any], state: str) -> str:
    if "failed" in candidate:
        return "failed"
    sample = candidate.get("seconds", {}).get(state)
    return "-" if sample is None else f"{1e6 * sample['median']:.1f}"


def markdown(lines: list[dict[str, Any]], broken: int) -> str:
    """Times in microseconds: as called with cold caches, and in a CUDA graph."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_kind.setdefault(line["kind"], []).append(line)
    out = []
    for said in by_kind.get("machine", []):
        where = said["machine"].get("gpu", "a rehearsal without a GPU: these times say nothing of one")
        out.append(f"{where}; torch {said['versions']['torch']}; {said['date']}; commit {said['commit']}\n")
    bandwidth = next((line["value"] for line in by_kind.get("limit", []) if line["name"] == "bandwidth"), None)
    out.append("| case | candidate | call, us | in a graph, us | bytes at copy speed, us |\n|---|---|---:|---:|---:|")
    for row in by_kind.get("row", []):
        name = f"`{row['operator']}` {row['case']}, {row['mode']}"
        floor = f"{1e6 * row['floor']['bytes'] / bandwidth:.1f}" if bandwidth and "floor" in row else "-"
        if "error" in row:
            out.append(f"| {name} | failed: {row['error'].splitlines()[0]} | - | - | {floor} |")
        for candidate, c in row["candidates"].items():
            out.append(f"| {name} | {candidate} | {microseconds(c, 'cold')} | {microseconds(c, 'graph')} | {floor} |")
    failures = [
        f"- {row['operator']}, {row['case']}: {name}: {c['failed']}"
        for row in by_kind.get("row", [])
        for name, c in row["candidates"].items()
        if "failed" in c
    ]
    left_out = [f"- no time was left for {line['case']}" for line in by_kind.get("left out", [])]
    if broken:
        left_out.append(f"- {broken} line was cut off")
    stages = [f"- {s['name']}: {s['result']}, {s['seconds']} s. {s['last']}" for s in by_kind.get("stage", [])]
    return "\n".join([*out, "", *failures, *left_out, *stages, ""])


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python bench/gpu_report.py RESULTS.jsonl", file=sys.stderr)
        return 2
    try:
        print(markdown(*read(Path(sys.argv[1]))))
    except OSError as error:
        print(f"bench/gpu_report.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
