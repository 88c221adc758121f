"""The results as text: a table for the terminal, and Markdown."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from bench.results import (
    Results,
    Row,
    disturbed,
    eager_baseline,
    failures,
    honest_allocator,
    machine_line,
    ours,
    ratio,
    seconds,
    strongest_baseline,
    timed_rows,
)


def duration(value: float | None) -> str:
    """Milliseconds with three digits."""
    if value is None:
        return "-"
    milliseconds = value * 1e3
    return f"{milliseconds:.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"


def times(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}x" if value >= 10 else f"{value:.2g}x"


def megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:.1f}" if value < 1e7 else f"{value / 1e6:.0f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}" if value >= 0.1 else f"{100 * value:.1f}"


def terminal_tables(results: Results) -> list[Table]:
    """One table per operator, one section per case."""
    return [
        _operator_table(results, operator, [row for row in timed_rows(results) if row["operator"] == operator])
        for operator in dict.fromkeys(row["operator"] for row in timed_rows(results))
    ]


def _operator_table(results: Results, operator: str, rows: list[Row]) -> Table:
    honest = honest_allocator(results)
    table = Table(title=f"{operator} (times in ms)", title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("candidate")
    for allocator in results["allocators"]:
        for column in ("cold", "+-%", "warm"):
            above = allocator if column == "cold" else ""
            table.add_column(f"{above}\n{column}", justify="right", no_wrap=True)
    if results["device"] == "cuda":
        table.add_column("in a\ngraph", justify="right", no_wrap=True)
    for column in ("error", "peak\nMB", "copy\n%", "FMA\n%", "x\nfloor", "vs\nbest", "vs\neager"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        floor = row["floor"]
        limit = max(floor["limits"], key=floor["limits"].get)
        table.add_section()
        # Brackets of shapes are no markup.
        table.add_row(Text(row["case"], style="bold"))
        table.add_row(Text(f"{row['mode']}, floor {duration(floor['seconds'])} ({limit})", style="bold"))
        for name, c in row["candidates"].items():
            color = "green" if c["backend"] else "default"
            if "failed" in c:
                table.add_row(f"  [red]{name}: not timed, see below[/]")
                continue
            cells = [f"  [{color}]{name}[/]"]
            for allocator in results["allocators"]:
                cold = c["seconds"][allocator]["cold"]
                cells += [duration(cold["median"]), f"{100 * (cold['q3'] - cold['q1']) / cold['median']:.0f}"]
                cells += [duration(seconds(c, allocator, "warm"))]
            if results["device"] == "cuda":
                cells.append(duration(seconds(c, honest, "graph")))
            time = seconds(c, honest)
            assert time is not None
            cells += [
                f"{c['error']:.0e}",
                megabytes(c.get("peak_bytes")),
                percent(floor["limits"]["bytes"] / time),
                percent(floor["limits"]["operations"] / time),
                f"{time / floor['seconds']:.1f}",
                times(ratio(strongest_baseline(row, honest), time)),
                times(ratio(eager_baseline(row, honest), time)),
            ]
            table.add_row(*cells)
    return table


def summary_line(row: Row, allocator: str) -> str:
    """One finished row of one allocator's measurement in a line (``seconds`` not yet merged)."""
    timed = {n: c["seconds"]["cold"]["median"] for n, c in row["candidates"].items() if "seconds" in c}
    best = min(((t, n) for n, t in timed.items() if row["candidates"][n]["backend"] is None), default=None)
    parts = []
    for name in ours(row):
        if name in timed:
            faster = f" ({times(best[0] / timed[name])})" if best is not None else ""
            parts.append(f"{name} {duration(timed[name])} ms{faster}")
    if best is not None:
        parts.append(f"best other {duration(best[0])} ms ({best[1]})")
    if row["image_size"] is not None:
        parts = [f"{n} {megabytes(c.get('peak_bytes'))} MB" for n, c in row["candidates"].items()]
    return f"[{allocator}] {row['operator']} {row['case']}, {row['mode']}: {'; '.join(parts)}"


def notes(results: Results) -> list[str]:
    """How to read the figures, what was verified, what is missing."""
    errors: dict[str, float] = {}
    count = 0
    for row in results["rows"]:
        for c in row["candidates"].values():
            if "failed" not in c:
                count += 1
                errors[row["operator"]] = max(errors.get(row["operator"], 0.0), c["error"])
    rates = ", ".join(f"{rate / 1e9:.0f} G multiply-adds/s {t}" for t, rate in results["multiply_add_rate"].items())
    lines = [
        machine_line(results),
        f"Measured rates: copy {results['copy_bandwidth'] / 1e9:.1f} GB/s (read + written), {rates}.",
        "cold: caches flushed before the call; warm: called again at once; medians, +-% is the distance between the "
        f"quartiles. Percentages, x floor and ratios are of the cold {honest_allocator(results)} figures.",
        f"Before timing, {count} results were compared with float64 PyTorch; largest errors: "
        + ", ".join(f"{operator} {error:.0e}" for operator, error in errors.items())
        + ".",
    ]
    lines += cpu_backend_notes(results)
    lines += [f"Absent: {operator}: {reason}." for operator, reason in results["absent"].items()]
    lines += [f"Not timed: {failure}." for failure in failures(results)]
    if doubtful := disturbed(results):
        share = f"{len(doubtful)} of {len(timed_rows(results)) * len(results['allocators'])}"
        lines.append(f"WARNING: other programs were busy while {share} rows were timed; run again on an idle machine.")
    return lines


# The README's few rows, wins and losses: operator, start of the case's name, mode.
README_ROWS = (
    ("upsample_cross_entropy", "[2, 21, 64, 64] x8, int64", "forward"),
    ("upsample_cross_entropy", "[2, 21, 64, 64] x8, int64", "forward + gradient"),
    ("upsample_cross_entropy", "[1, 150, 64, 64] x8, int64", "forward + gradient"),
    ("upsample_region_sums", "cross-entropy + Dice, [2, 21, 64, 64]", "forward + gradient"),
    ("upsample_argmax", "[2, 21, 64, 64] x8, random", "forward"),
    ("fcn8s_head", "500 x 500", "forward"),
    ("upsample_add", "[1, 256, 128, 128]", "forward"),
    ("upsample_add", "[2, 21, 34, 34]", "forward"),
    ("cross_entropy", "[2, 21, 512, 512], NCHW", "forward"),
    ("cross_entropy", "[2, 21, 512, 512], NCHW", "forward + gradient"),
    ("conv_transpose_add", "[1, 256, 128, 128]", "forward + gradient"),
    ("dilated_conv2d", "[1, 512, 64, 64], dilation 2, float32", "forward"),
    ("dilated_conv2d", "[1, 512, 64, 64], dilation 2, float32", "forward + gradient"),
    ("dilated_conv2d", "[1, 512, 64, 64], dilation 12, float32", "forward"),
    ("vgg16_convolutions", "500 x 500, float32", "forward"),
)


def readme_table(results: Results) -> str:
    """The rows of ``README_ROWS`` that were measured, in few columns."""
    allocators, honest = results["allocators"], honest_allocator(results)
    lines = [
        f"| operator, case | ours, ms | best other, ms | times faster ({' / '.join(allocators)} allocator) "
        "| peak MB, ours / usual |",
        "|---|---:|---:|---:|---:|",
    ]
    for operator, case, mode in README_ROWS:
        for row in timed_rows(results):
            if (row["operator"], row["mode"]) != (operator, mode) or not row["case"].startswith(case):
                continue
            eager, best = eager_baseline(row, honest), strongest_baseline(row, honest)
            for name, c in ours(row).items():
                time = seconds(c, honest)
                if time is None or eager is None or best is None:
                    continue
                faster = " / ".join(times(ratio(strongest_baseline(row, a), seconds(c, a))) for a in allocators)
                memory = [megabytes(c.get("peak_bytes")), megabytes(row["candidates"][eager[0]].get("peak_bytes"))]
                where = "" if name == "cpu" else f" ({name})"
                lines.append(
                    f"| `{operator}`{where} {row['case']}, {mode} | {duration(time)} "
                    f"| {duration(best[1])} ({best[0]}) | **{faster}** | {' / '.join(memory)} |"
                )
    busy = len(disturbed(results))
    lines += [
        "",
        "Against the fastest other way: PyTorch's spellings, eager and compiled, and engines that were installed. Cold "
        "caches, medians, times with the "
        f"{honest} allocator. {machine_line(results)}."
        + (f" Other programs disturbed {busy} rows of the run: take ratios as rough." if busy else ""),
    ]
    return "\n".join(lines) + "\n"


def cpu_backend_notes(results: Results) -> list[str]:
    """Speed by instruction set, and beside PyTorch's own threads, in a sentence each."""
    found = results.get("cpu_backend", {})
    notes = []
    for call, by_isa in found.get("instruction_sets", {}).items():
        best = min(by_isa.values())
        speeds = ", ".join(f"{isa} {best / time:.2f}" for isa, time in by_isa.items())
        notes.append(f"Warm speed by instruction set, {call} (the fastest is 1): {speeds}.")
    if found:
        costs = ", ".join(
            f"{name} {duration(by['alone'])} ms alone, {duration(by['in turn'])} ms in turn"
            for name, by in found["alternating"].items()
        )
        notes.append(f"Our call and PyTorch's, which share one pool of threads, repeated alone and in turn: {costs}.")
    return notes


def markdown(results: Results) -> str:
    """The comparison as a Markdown table: ours, the fastest other way, and how far from the floor."""
    allocators, honest = results["allocators"], honest_allocator(results)
    with_allocators = " / ".join(allocators)
    lines = [
        f"| operator and case | backend | ms | best other, ms | faster than best ({with_allocators}) "
        f"| faster than eager ({with_allocators}) | x floor | peak MB, ours / eager | error, ours / best other |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    operator = ""
    for row in timed_rows(results):
        eager = eager_baseline(row, honest)
        best = strongest_baseline(row, honest)
        for name, c in ours(row).items():
            time = seconds(c, honest)
            if time is None or eager is None or best is None:
                continue
            if row["operator"] != operator:
                operator = row["operator"]
                lines.append(f"| **`{operator}`** | | | | | | | | |")
            against_best = [times(ratio(strongest_baseline(row, a), seconds(c, a))) for a in allocators]
            against_eager = [times(ratio(eager_baseline(row, a), seconds(c, a))) for a in allocators]
            memory = [megabytes(c.get("peak_bytes")), megabytes(row["candidates"][eager[0]].get("peak_bytes"))]
            lines.append(
                f"| {row['case']}, {row['mode']} | {name} | {duration(time)} | {duration(best[1])} ({best[0]}) "
                f"| {' / '.join(against_best)} | {' / '.join(against_eager)} | {time / row['floor']['seconds']:.1f} "
                f"| {' / '.join(memory)} | {c['error']:.0e} / {row['candidates'][best[0]]['error']:.0e} |"
            )
    note = [
        f"Times in ms, cold caches, medians, {honest} allocator. {machine_line(results)}.",
        f"Floor: the larger of compulsory bytes / {results['copy_bandwidth'] / 1e9:.0f} GB/s (copy, measured) and "
        f"operations / {results['multiply_add_rate'].get('float32', 0) / 1e9:.0f} G multiply-adds/s (measured). Error: "
        "of the result against float64 PyTorch, relative, root mean square, checked before it was timed.",
    ]
    note += cpu_backend_notes(results)
    note += [f"Not timed: {failure}." for failure in failures(results)]
    return "\n".join([*lines, "", *note]) + "\n"
