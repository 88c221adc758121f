"""The command ``fcn serve``: what it says, and how it ends."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fcn.cli import main
from fcn.cli.serve import listening, names_of, say_where
from fcn.inference.predictor import Predictor
from fcn.weights import save_weights
from tests.fcn.networks import random_model

for package in ("prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (the extra serve)")

from tests.fcn.serving import GOOD, Server, picture, predictor  # noqa: E402


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    told = predictor()
    save_weights(
        path, random_model("small", stride=8, classes=4), classes=told.classes, palette=told.palette,
        preprocessing=told.preprocessing,
    )  # fmt: skip
    return path


def test_the_command_says_where_and_ends_cleanly(weights: Path) -> None:
    command = [sys.executable, "-m", "fcn", "serve", str(weights), str(weights), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(
                r"fcn serve: http://127\.0\.0\.1:(\d+) \(this machine alone can reach it; Ctrl-C ends it\)\n", line
            )
            assert found, line
            server = Server(int(found[1]), Predictor(weights, "cpu"))
            np.testing.assert_array_equal(server.post(GOOD).pixels, server.predictor(picture()))
            folder = weights.parent.name
            names = [each["name"] for each in server.get("/networks").json["networks"]]
            assert names == [f"{folder}/best", f"{folder}/best (1)"]
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, rest, errors) == (0, "", "fcn serve: stopped\n")


def test_other_machines_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    with listening("0.0.0.0", 0) as listener:
        say_where(listener)
        number = listener.getsockname()[1]
    told = capsys.readouterr()
    assert told.out == f"fcn serve: http://0.0.0.0:{number} (other machines can reach it; Ctrl-C ends it)\n"
    assert told.err == "fcn serve: warning: whoever reaches it can use it: no password, no encryption\n"


def test_wrong_usage_is_one_line(
    weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert main(["serve", str(weights), "--port", str(number)]) == 2
    expected = f"fcn serve: port {number} of 127.0.0.1 is in use; --port takes another, --port 0 any free one\n"
    assert capsys.readouterr().err == expected
    assert main(["serve", str(weights), "--port", "0", "--host", "no.such.host.invalid"]) == 2
    assert re.fullmatch(r"fcn serve: cannot listen at no.such.host.invalid, port 0: .+\n", capsys.readouterr().err)
    assert main(["serve", "missing.safetensors", "--port", "0"]) == 2
    assert "missing.safetensors" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", str(weights), "--port", "70000"])
    assert "argument --port: must be a whole number from 0 to 65535, got 70000" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(weights)]) == 2
    assert capsys.readouterr().err == "fcn serve: uvicorn is not installed: pip install 'fcn-kernels[serve]'\n"


def test_names_of_networks() -> None:
    assert names_of(["a/32s.safetensors", "hf://user/fcn8s"]) == ["32s", "fcn8s"]
    assert names_of(["a/best.safetensors", "b/best.safetensors"]) == ["a/best", "b/best"]
