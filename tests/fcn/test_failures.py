"""What a command says of errors that nobody foresaw."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fcn.cli import info, main


def failing(error: BaseException) -> Any:
    def run(*_: Any, **__: Any) -> int:
        raise error

    return run


@pytest.fixture(autouse=True)
def _no_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FCN_TRACEBACK", raising=False)


def test_an_unforeseen_error_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(info, "run", failing(RuntimeError("one\ntwo " + 400 * "x")))
    assert main(["info", "vgg16"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    found = re.fullmatch(r"fcn info: unexpected RuntimeError: one two x+\.\.\. \(where that was: (.*)\)\n", error)
    assert found is not None
    assert "raise error" in Path(found[1]).read_text()


def test_where_no_file_can_be_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", failing(OSError("disk full")))
    monkeypatch.setattr(info, "run", failing(IndexError()))
    assert main(["info", "vgg16"]) == 2
    assert capsys.readouterr().err == (
        "fcn info: unexpected IndexError: IndexError (run it again with FCN_TRACEBACK=1 for where that was)\n"
    )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "out of memory: MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory: DefaultCPUAllocator"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."),
            "with data.workers 0 none is needed",
        ),
        (ValueError("a.png: what\nis wrong"), "a.png: what is wrong"),
        (KeyboardInterrupt(), "interrupted"),
        (ModuleNotFoundError("No module named 'av'", name="av"), "this needs av, which is not installed"),
        (ModuleNotFoundError("No module named 'fcn.x'", name="fcn.x"), "unexpected ModuleNotFoundError"),
    ],
)
def test_lines(
    error: BaseException, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(info, "run", failing(error))
    assert main(["info", "vgg16"]) == (130 if isinstance(error, KeyboardInterrupt) else 2)
    said = capsys.readouterr().err
    assert said.startswith("fcn info: ")
    assert line in said
    assert said.count("\n") == 1


def test_tracebacks_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCN_TRACEBACK", "1")
    monkeypatch.setattr(info, "run", failing(IndexError("here")))
    with pytest.raises(IndexError, match="here"):
        main(["info", "vgg16"])


def test_a_reader_that_leaves_is_no_error() -> None:
    result = subprocess.run(
        f"{sys.executable} -m fcn data kinds | head -0; sleep 1", shell=True, capture_output=True, text=True, check=True
    )
    assert result.stderr == ""


@pytest.mark.parametrize("words", [["data", "kinds"], ["train", "--keys"]])
def test_without_docstrings_and_assertions(words: list[str]) -> None:
    subprocess.run([sys.executable, "-OO", "-m", "fcn", *words], capture_output=True, check=True)
