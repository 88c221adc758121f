"""Configurations of Triton kernels: tables, heuristics, what the tuner writes, what the compiler makes of them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fcn_kernels import BilinearGrid, configs, conv_transpose_add, launch, tune, upsample_add
from fcn_kernels.backend import implementation, why_not
from fcn_kernels.compile_report import main, triton_cases
from tests.kernels.conftest import device_of
from tests.strategies import with_layout

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
runs = pytest.mark.skipif(why_not("triton") is not None, reason=str(why_not("triton")))
DEVICE = torch.device(device_of("triton"))
KEY = {"dtype": "float32", "size": 20, "FLAG": True}
ENTRY = {"operator": "upsample_add", "kernel": "_forward", "key": KEY, "config": {"ROWS": 2}}


def compile_report(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which compiles where this one interprets."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "fcn_kernels.compile_report", "--backend", "triton", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def assert_promises_kept(report: subprocess.CompletedProcess[str]) -> None:
    """No spills, 16-byte accesses where promised, on both targets."""
    assert report.returncode == 0, report.stdout + report.stderr
    lines = [line.split() for line in report.stdout.splitlines() if line.split()[:1] == ["triton"]]
    assert {operator for _, operator, *_ in lines} == {case.operator for case in triton_cases()}
    assert {line[-8] for line in lines} == {"sm_80", "sm_90"}
    assert {line[-6] for line in lines} == {line[-2] for line in lines} == {"0"}  # spills; narrow accesses
    assert any(line[-4].startswith("16x") and line[-3].startswith("16x") for line in lines)


def test_kernels_keep_their_promises() -> None:
    assert_promises_kept(compile_report("--quick"))


@pytest.mark.slow
def test_every_shipped_configuration_keeps_its_promises() -> None:
    assert_promises_kept(compile_report())


def test_compile_report_of_an_unknown_operator(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--operator", "upsample"])
    assert "there are no kernels to compile of upsample" in capsys.readouterr().err


def test_keys_hold_every_compile_time_parameter() -> None:
    for case in triton_cases():
        compile_time = {name for name in case.kernel.arg_names if name not in case.signature}
        assert compile_time <= case.key.keys() | case.config.keys(), case
        assert not case.key.keys() & case.config.keys(), case
        assert case.key.keys() >= {"dtype", "size"}, case


def test_keys_survive_the_file(tmp_path: Path) -> None:
    """A key that came back from JSON as something else would never be found."""
    entries = [
        {"operator": case.operator, "kernel": case.kernel.__name__, "key": case.key, "config": case.config}
        for case in triton_cases()
    ]
    tune.write_table(tmp_path / "table.json", entries)
    assert configs.read_table(tmp_path / "table.json") == entries


def test_table_goes_before_heuristic(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(**key: object) -> int:
        return configs.config("upsample_add", "_forward", lambda **_: {"ROWS": 7}, DEVICE, **{**KEY, **key})["ROWS"]

    monkeypatch.setattr(configs, "table", lambda gpu: [ENTRY])
    configs._look_up.cache_clear()
    assert [rows(), rows(size=22), rows(size=18), rows(size=23), rows(FLAG=False)] == [2, 2, 2, 7, 7]
    with configs.forced("upsample_add", "_forward", {"ROWS": 3}):
        assert rows() == 3
    configs._look_up.cache_clear()


def test_shipped_tables_are_for_kernels_that_there_are() -> None:
    kernels = {(case.operator, case.kernel.__name__): case.config.keys() for case in triton_cases()}
    for path in configs.TABLES.glob("*.json"):
        for entry in configs.read_table(path):
            assert entry["config"].keys() == kernels[entry["operator"], entry["kernel"]], (path, entry)


def test_tuner_writes_what_was_fastest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    x, out = torch.empty(1, 2, 3, 4, device="meta"), torch.empty(1, 2, 6, 8, device="meta")
    grid = BilinearGrid.interpolate((3, 4), (6, 8)).as_ints()

    def passes(operator: str, device: torch.device) -> list[tuple[str, Callable[[], object]]]:
        return [("one", lambda: implementation("upsample_add", "triton").upsample_add(x, None, grid, out))]

    def milliseconds(run: Callable[[], object], flush: torch.Tensor) -> float:
        with launch.record():  # a launch without a device
            run()
        config = configs._forced["upsample_add", "_forward"]
        if config["num_warps"] > 1:
            raise RuntimeError("too many warps")
        return abs(config["ROWS"] - 8)

    monkeypatch.setattr(tune, "passes", passes)
    monkeypatch.setattr(tune, "milliseconds", milliseconds)
    (entry,) = tune.tune("upsample_add", DEVICE)
    assert entry["config"]["ROWS"] == 8
    assert entry["key"]["SKIP"] is False
    table = [{**entry, "config": {"ROWS": 1}}, {**entry, "kernel": "_backward"}]
    assert tune.merge(table, [entry]) == [entry, table[1]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to tune for")
def test_tuner_says_that_there_is_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tune.main([])
    assert "tuning measures on an NVIDIA GPU, and torch finds none here" in capsys.readouterr().err


@pytest.mark.parametrize(("stride", "wide"), [(2**31 - 1, False), (2**31, True)])
def test_offsets_beyond_32_bits_are_seen(stride: int, wide: bool) -> None:
    x = torch.empty(0, device="meta").as_strided((5, 2, 1, 1), (2**40, stride, 1, 1))
    assert launch.is_wide(None, x) is wide


@runs
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_64_bit_numbers_change_nothing(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    """Offsets and coordinates in 64 bits, forced on small data, give the same bits."""
    x, skip = (with_layout(torch.randn(2, 3, n, n + 4, device=DEVICE), layout) for n in (5, 11))
    weight, fine = torch.randn(3, 1, 4, 4, device=DEVICE), 2**28

    def run(scale: int) -> list[torch.Tensor]:
        grid = BilinearGrid((11, 15), (scale, scale), (-scale, scale), (2 * scale, 2 * scale))
        leaves = [t.detach().requires_grad_() for t in (x, weight, skip)]
        added = upsample_add(leaves[0], leaves[2], grid=grid, backend="triton")
        made = conv_transpose_add(*leaves, stride=2, crop=1, backend="triton")
        return [added, made, *torch.autograd.grad((added, made), leaves, (skip, skip))]

    want = run(1)
    monkeypatch.setattr(launch, "force_wide", True)
    assert all(map(torch.equal, run(fine), want))


def test_arguments_that_are_not_specialised_are_recorded_as_they_are() -> None:
    """A case says no more of an argument than Triton knows when it compiles the launch."""
    plain = {name: case for case in triton_cases() for name in launch.not_specialised(case.kernel)}
    assert plain
    for name, case in plain.items():
        assert name not in case.aligned, case
        assert case.signature.get(name) is None or isinstance(case.signature[name], str), case
