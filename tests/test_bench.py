"""The speed comparison: statistics, tables, the README's block, baselines, and a run from end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import (
    baselines,
    cases,
    gpu_measure,
    gpu_report,
    inputs,
    measure,
    memory,
    report,
    results,
    run,
    tables,
    timing,
)
from fcn_kernels import backend as kernels

ROOT = Path(__file__).resolve().parents[1]
ALL_CASES = [case for module in cases.modules() for case in module.CASES]


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 10), min_size=2, max_size=30))
def test_sample_has_the_median_and_the_quartiles(seconds: list[float]) -> None:
    sample = timing.Sample.of(seconds)
    assert sample.median == pytest.approx(torch.tensor(seconds, dtype=torch.float64).quantile(0.5).item())
    assert sample.q1 == pytest.approx(torch.tensor(seconds, dtype=torch.float64).quantile(0.25).item())
    assert sample.q3 == pytest.approx(torch.tensor(seconds, dtype=torch.float64).quantile(0.75).item())
    assert sample.rounds == len(seconds)


class FakeClock:
    """Notes the order of events; the first call after evict() takes 5 s, others 1 s."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.cold = False

    def evict(self) -> None:
        self.cold = True

    def time(self, call: Any) -> float:
        self.log.append(call())
        seconds, self.cold = (5.0 if self.cold else 1.0), False
        return seconds


def test_candidates_take_turns_each_cold_then_warm() -> None:
    clock = FakeClock()
    samples = timing.compare({"a": lambda: "a", "b": lambda: "b"}, clock, budget=0)
    assert samples["a"]["cold"].median == samples["b"]["cold"].median == 5
    assert samples["a"]["warm"].median == samples["b"]["warm"].median == 1
    assert samples["a"]["cold"].rounds == timing.MIN_ROUNDS
    rounds = [clock.log[i : i + 4] for i in range(0, len(clock.log), 4)]
    assert all(sorted(r) == ["a", "a", "b", "b"] and r[0] == r[1] for r in rounds)
    assert {r[0] for r in rounds[1:]} == {"a", "b"}  # nobody always goes first


def candidate(cold: float, *, backend: str | None = None, eager: bool = False, **more: Any) -> dict[str, Any]:
    sample = {"median": cold, "q1": 0.9 * cold, "q3": 1.1 * cold, "rounds": 5}
    warm = {**sample, "median": cold / 2}
    return {"backend": backend, "eager": eager, "error": 1e-7, "seconds": {"cold": sample, "warm": warm}, **more}


def measured(ours: float, *, wrong: bool = False) -> dict[str, Any]:
    row = {
        "operator": "upsample_add", "case": "[2, 21, 34, 34], tiny", "mode": "forward",
        "headline": True, "image_size": None,
        "compute_dtype": "float32", "tolerance": 1e-5, "preemptions": 0.0,
        "floor": {"bytes": 1000, "operations": 100, "exps": 10, "total_operations": 200},
        "candidates": {
            "cpu": candidate(ours, backend="cpu", peak_bytes=500_000),
            "interpolate": candidate(0.060, eager=True, peak_bytes=80_000_000),
            "matmul": candidate(0.040),
        },
    }  # fmt: skip
    if wrong:
        row["candidates"]["matmul"] = {"backend": None, "eager": False, "failed": "wrong result: error 1"}  # type: ignore[index]
    beside = {
        "instruction_sets": {"upsample_argmax": {"avx2": 0.002, "avx512": 0.001}},
        "alternating": {"ours": {"alone": 0.001, "in turn": 0.0012}},
    }
    return {"copy_bandwidth": 1e6, "multiply_add_rate": {"float32": 1e6}, "cpu_backend": beside, "rows": [row]}


def merged(**options: Any) -> results.Results:
    description = {
        "device": "cpu", "date": "2026-01-02T03:04", "commit": "abc",
        "machine": {"cpu": "A CPU", "threads": 2, "vector_instructions": "AVX2"}, "versions": {"torch": "2"},
    }  # fmt: skip
    return results.merge(
        description, {"default": measured(0.010), "tuned": measured(0.004, **options)}, {"x": "absent"}
    )


def test_merged_results_have_floor_strongest_baseline_and_ratios() -> None:
    found = merged()
    (row,) = found["rows"]
    assert row["floor"]["seconds"] == pytest.approx(1e-3)  # 1000 bytes at 1e6 per second; operations take 0.2 ms
    assert results.honest_allocator(found) == "tuned"
    assert results.strongest_baseline(row, "tuned") == ("matmul", 0.040)
    assert results.eager_baseline(row, "tuned") == ("interpolate", 0.060)
    assert results.seconds(row["candidates"]["cpu"], "default") == 0.010
    assert results.seconds(row["candidates"]["cpu"], "tuned", "warm") == 0.002
    assert not results.failures(found)


def test_markdown_says_what_instruction_sets_and_shared_threads_cost() -> None:
    text = tables.markdown(merged())
    assert "upsample_argmax (the fastest is 1): avx2 0.50, avx512 1.00." in text
    assert "ours 1 ms alone, 1.2 ms in turn" in text


def test_a_wrong_result_is_named_not_timed_and_serious() -> None:
    found = merged(wrong=True)
    assert results.serious(found)
    assert "matmul: wrong result" in results.failures(found)[0]
    assert results.strongest_baseline(found["rows"][0], "tuned") == ("interpolate", 0.060)
    assert "wrong result" in tables.markdown(found)


def test_busy_machine_is_reported() -> None:
    found = merged()
    assert not results.disturbed(found)
    found["rows"][0]["preemptions"]["tuned"] = 1000.0
    assert "(tuned)" in results.disturbed(found)[0]
    assert any(note.startswith("WARNING") for note in tables.notes(found))


def test_markdown_shows_times_ratios_floor_and_memory() -> None:
    row = next(line for line in tables.markdown(merged()).splitlines() if "tiny" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "[2, 21, 34, 34], tiny, forward",
        "cpu",
        "4",
        "40 (matmul)",
        "4x / 10x",
        "6x / 15x",
        "4.0",
        "0.5 / 80",
        "1e-07 / 1e-07",
    ]


def test_readme_block_is_replaced_checked_and_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme, file = tmp_path / "README.md", tmp_path / "cpu.json"
    results.save(file, merged())
    readme.write_text(f"above\n{report.BEGIN}\nstale words\n{report.END}\nbelow\n")
    arguments = ["--readme", str(readme), str(file)]
    assert report.main([*arguments, "--check"]) == 1
    assert report.main(arguments) == 0
    assert report.main([*arguments, "--check"]) == 0
    text = readme.read_text()
    assert text.startswith("above\n")
    assert text.endswith("\nbelow\n")
    assert "stale words" not in text
    assert "| 40 (matmul) | **4x / 10x** |" in text
    readme.write_text("no marks")
    assert report.main(arguments) == 2
    assert "README.md" in capsys.readouterr().err
    file.write_text("{")
    assert report.main(arguments) == 2
    assert "cpu.json" in capsys.readouterr().err


def test_keys_of_cases_are_unique() -> None:
    assert len({case.key for case in ALL_CASES}) == len(ALL_CASES)


# Small and not slow: with these every module's baselines meet its float64 expectation.
SMALL = [case for case in ALL_CASES if case.small and "256, 128" not in case.name and case.operator != "cross_entropy"]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.key)
def test_baselines_compute_what_they_are_compared_with(case: cases.Case) -> None:
    problem = case.build(torch.device("cpu"))
    eager = [c for c in problem.baselines if not c.name.startswith("torch.compile")]
    checked = measure.check(problem, eager)
    assert all("failed" not in result for result in checked.values()), checked
    assert sum(c.eager for c in eager) == 1
    assert problem.floor.bytes > 0
    assert problem.floor.operations > 0


def test_every_operator_has_small_cases() -> None:
    assert {case.operator for case in ALL_CASES if case.small} == {module.OPERATOR for module in cases.modules()}


def test_check_finds_wrong_values_shapes_and_exceptions() -> None:
    right = torch.ones(2, 3, dtype=torch.float64)

    def broken() -> cases.Outputs:
        raise RuntimeError("no compiler\nhere")

    candidates = [
        cases.Candidate("good", lambda: (torch.ones(2, 3),)),
        cases.Candidate("off", lambda: (torch.full((2, 3), 1.001),)),
        cases.Candidate("nan", lambda: (torch.full((2, 3), float("nan")),)),
        cases.Candidate("shape", lambda: (torch.ones(3, 2),)),
        cases.Candidate("broken", broken),
    ]
    problem = cases.Problem(candidates, lambda _: (), {"exact": lambda: (right,)}, cases.Floor(1, 1))
    checked = measure.check(problem, candidates)
    assert "failed" not in checked["good"]
    assert all("failed" in checked[name] for name in ("off", "nan", "shape", "broken"))
    assert checked["broken"]["failed"] == "RuntimeError: no compiler"


def test_label_error_is_zero_at_ties_and_counts_a_wrong_label() -> None:
    scores = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1)
    assert cases.label_error((torch.tensor([[[1]]]),), (scores,)) == 0
    assert cases.label_error((torch.tensor([[[2]]]),), (scores,)) > 0.1


def test_bilinear_filter_is_fcns() -> None:
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    assert torch.allclose(baselines.bilinear_filter(2, 4, line), (line[:, None] * line).expand(2, 1, 4, 4))


def test_voronoi_labels_are_regions_with_ignored_pixels() -> None:
    labels = inputs.voronoi_labels((2, 40, 50), 21)
    assert labels.dtype == torch.int64
    assert (labels[:, :2] == inputs.IGNORE_INDEX).all()
    body = labels[:, 2:]
    assert int(body.max()) < 21
    assert (body[:, :, 1:] == body[:, :, :-1]).float().mean() > 0.9


def test_peak_memory_is_that_of_the_call() -> None:
    def call() -> torch.Tensor:
        temporary = torch.ones(2**23)  # 32 MiB
        return temporary[:1] + 1

    assert 30 * 2**20 < memory.peak_of(call) < 48 * 2**20


def test_run_from_another_folder(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "bench" / "run.py"), "--device", "cpu", "--backend", "reference"]
    command += ["--op", "fcn8s_head", "--allocator", "default", "--out", str(out), "--plot", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "compared with float64 PyTorch" in done.stdout
    (row,) = json.loads(out.read_text())["rows"]
    ours = row["candidates"]["reference"]
    assert ours["seconds"]["default"]["cold"]["median"] > row["floor"]["seconds"] > 0
    assert ours["peak_bytes"] > 0
    assert (tmp_path / "cpu_speed.png").stat().st_size > 10_000


def test_operators_named_together_or_apart_are_all_measured() -> None:
    together, apart = ["--op", "cross_entropy", "upsample_add"], ["--op", "cross_entropy", "--op", "upsample_add"]
    assert run.parse(together).op == run.parse(apart).op == ["cross_entropy", "upsample_add"]
    assert run.parse([]).op == [module.OPERATOR for module in cases.modules()]


def test_wrong_arguments_end_with_status_2_and_a_reason() -> None:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), "--device", "cpu", "--backend", "cuda"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--backend cuda cannot run here" in done.stderr
    assert "Traceback" not in done.stderr


def start_gpu_script(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [str(ROOT / "bench" / "gpu.sh"), *arguments]
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), **environment}
    environment.pop("TRITON_INTERPRET", None)  # with it Triton's kernels would be measured too, for a minute
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def gpu_script(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit status, output and errors."""
    process = start_gpu_script(*arguments, **environment)
    out, errors = process.communicate(timeout=200)
    return process.returncode, out, errors


@pytest.mark.parametrize(("call", "limit"), [("first", 400), ("second", 240)])
def test_gpu_script_prints_a_plan_that_fits(call: str, limit: int) -> None:
    *plan, last = gpu_script(call, "--dry-run", OUT="somewhere")[1].splitlines()
    assert plan[0].split()[0] in ("needs", "built")
    assert (
        last
        == f"at most {limit} s in all; results in somewhere/{call}.jsonl, somewhere/{call}.md and somewhere/{call}.log"
    )
    assert any(f"gpu_measure.py {call} somewhere/{call}.jsonl" in line for line in plan)


@pytest.mark.parametrize("arguments", [(), ("third",), ("first", "--nothing")])
def test_gpu_script_refuses(arguments: tuple[str, ...]) -> None:
    status, _, errors = gpu_script(*arguments)
    assert status == 2
    assert errors.startswith("bench/gpu.sh: ")


def brought_home(folder: Path, out: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Results of stages, and rows: three files, whole lines, and a table of them that was printed."""
    assert sorted(path.name for path in folder.iterdir()) == ["first.jsonl", "first.log", "first.md"]
    lines = [json.loads(line) for line in (folder / "first.jsonl").read_text().splitlines()]
    rows = [line for line in lines if line["kind"] == "row"]
    table = (folder / "first.md").read_text()
    assert table in out
    assert all(f"`{row['operator']}` {row['case']}, {row['mode']} | cuda |" in table for row in rows)
    return {line["name"]: line["result"] for line in lines if line["kind"] == "stage"}, rows


emulated = pytest.mark.skipif(
    not kernels.EMULATED or kernels.why_not("cuda") is not None, reason="the emulator does not run here"
)


@emulated
def test_gpu_script_brings_home_what_it_has_when_it_is_ended(tmp_path: Path) -> None:
    """A rehearsal that is told to end among the cases."""
    process = start_gpu_script("first", "--rehearse", OUT=str(tmp_path))
    results = tmp_path / "first.jsonl"
    deadline = time.monotonic() + 150  # a loaded machine takes a minute to the first row, and ten for all
    while not (results.exists() and '"kind": "row"' in results.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    stages, rows = brought_home(tmp_path, out)
    assert stages == {"needs": "passed", "tests": "passed", "cases": "interrupted"}
    assert 1 <= len(rows) < len(gpu_measure.first(True))
    assert "seconds" in rows[0]["candidates"]["cuda"]
    assert "a rehearsal without a GPU" in out
    assert process.returncode == 1


@emulated
def test_gpu_script_keeps_its_limit(tmp_path: Path) -> None:
    began = time.monotonic()
    status, out, _ = gpu_script("first", "--rehearse", "--seconds", "9", OUT=str(tmp_path))
    assert time.monotonic() - began < 25
    stages, _ = brought_home(tmp_path, out)
    assert status == 1
    assert stages["cases"] in ("too long", "no time left")


def test_gpu_report_reads_what_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    gpu_measure.append(path, {"kind": "stage", "name": "build", "result": "passed", "seconds": "9", "last": "built"})
    path.write_text(path.read_text() + '{"kind": "row", "oper')
    table = gpu_report.markdown(*gpu_report.read(path))
    assert "- build: passed, 9 s. built" in table
    assert "- 1 line was cut off" in table


def test_readme_shows_the_committed_results() -> None:
    assert report.main(["--readme", str(ROOT / "README.md"), "--check", str(ROOT / "bench/results/cpu.json")]) == 0
