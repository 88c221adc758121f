"""What a command says of errors that nobody foresaw."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fcn.cli import info, main
from fcn.data.preprocessing import IMAGENET
from fcn.files import write_text
from fcn.networks.models import ModelConfig, build_model
from fcn.recipes.config import load_recipe
from fcn.weights import save_weights


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


def test_without_docstrings_and_assertions() -> None:
    subprocess.run([sys.executable, "-OO", "-m", "fcn", "train", "--keys"], capture_output=True, check=True)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 100 KiB: the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_file_and_names_it(small_files: None, tmp_path: Path) -> None:
    model = build_model(ModelConfig("small", 32, 2))
    file = tmp_path / "best.safetensors"
    file.write_bytes(b"old")
    with pytest.raises(OSError, match=r"best\.safetensors: cannot be written: .*File too large"):
        save_weights(file, model, classes=["a", "b"], palette=[(0, 0, 0)] * 2, preprocessing=IMAGENET)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
    write_text(tmp_path / "a.txt", "new")
    with pytest.raises(OSError, match=r"a\.txt: cannot be written: File too large"):
        write_text(tmp_path / "a.txt", "x" * (200 << 10))
    assert (tmp_path / "a.txt").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


def _bomb(key: str) -> str:
    """Of a few hundred bytes; each line stands for nine times the one before."""
    lines = ["a0: &a0 [0]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    return "\n".join([*lines, f"{key}: *a11"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_bomb("data"), "its aliases stand for more than 100000 values; this is no recipe"),
        (f"data: {'[' * 5000}{']' * 5000}", "its values are nested too deeply for a recipe"),
        ("data: &data {root: *data}", "its values are nested too deeply for a recipe"),
    ],
    ids=["bomb", "nested", "itself"],
)
def test_recipes_that_grow(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert main(["train", str(tmp_path / "r.yaml")]) == 2
    assert capsys.readouterr().err == f"fcn train: {tmp_path / 'r.yaml'}: {message}\n"


def test_aliases_are_no_fault_in_themselves(recipe_file: Path) -> None:
    recipe_file.write_text(recipe_file.read_text().replace("stages:", "stages: &stages"))
    assert "&stages" in recipe_file.read_text()
    load_recipe(recipe_file)


@pytest.mark.parametrize("header", ["[" * 100_000, '{"format": ' * 100_000, "[]", "3", "null", '{"format": 1}'])
def test_odd_headers_of_weights(header: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"fcn": header})
    assert main(["info", str(tmp_path / "a.safetensors")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fcn info: {tmp_path / 'a.safetensors'}: damaged header: ")
    assert error.count("\n") == 1
