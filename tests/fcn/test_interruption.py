"""Ctrl-C in a terminal and SIGTERM of a batch system, which reach the processes that read images too."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fcn.cli import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")


class Terminal:
    """A command that runs in a pseudo-terminal of its own, in the foreground."""

    def __init__(self, *command: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 100))  # without a width there is no progress bar
        self.output = ""
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=lambda: _take_terminal(slave)
        )
        os.close(slave)

    def read_until(self, seen: Callable[[str], object], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not seen(self.output):
            assert time.monotonic() < end, self.output
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # nobody is at the other end any more
                    return

    def finish(self) -> int:
        self.read_until(lambda _: self.process.poll() is not None)
        return self.process.wait(60)

    def press_ctrl_c(self) -> None:
        os.write(self.master, b"\x03")

    def terminate_all(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)


def _take_terminal(slave: int) -> None:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


@contextmanager
def training(recipe_file: Path, *options: str) -> Iterator[Terminal]:
    """A run that takes long, in its first steps."""
    long = ["--stages.stride=[32]", "--stages.epochs=[500]", "--stages.lr=[1e-4]", "--data.batch_size=1"]
    terminal = Terminal(sys.executable, "-m", "fcn", "train", str(recipe_file), *long, *options)
    try:
        terminal.read_until(lambda output: re.search(r"\D[3-9]/\d+ ", output))
        yield terminal
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


def twice(terminal: Terminal) -> None:
    terminal.press_ctrl_c()
    time.sleep(0.3)
    terminal.press_ctrl_c()


@pytest.mark.parametrize(
    ("stop", "options"),
    [
        (Terminal.press_ctrl_c, ["--data.workers=1"]),
        (Terminal.press_ctrl_c, ["--data.workers=2", "--trainer.accumulate=4"]),
        (twice, ["--data.workers=1", "--trainer.accumulate=6"]),
        (Terminal.terminate_all, ["--data.workers=1", "--trainer.accumulate=2"]),
    ],
)
def test_there_is_a_checkpoint_whatever_stops_a_run(
    recipe_file: Path, tmp_path: Path, stop: Callable[[Terminal], None], options: list[str]
) -> None:
    with training(recipe_file, *options) as terminal:
        stop(terminal)
        assert terminal.finish() == 130, terminal.output
    assert "Interrupted; the checkpoint is written" in terminal.output
    assert "Traceback" not in terminal.output
    checkpoint = torch.load(tmp_path / "run/fcn32s/last.ckpt", weights_only=True)
    assert stop is twice or checkpoint["global_step"] > 0
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_second_run_in_the_folder_is_refused(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with training(recipe_file):
        for words in (["train", str(recipe_file)], ["train", "--resume", str(tmp_path / "run")]):
            assert main(words) == 2
            assert f"another process is training in {tmp_path / 'run'}" in capsys.readouterr().err


def test_before_training_there_is_nothing_to_keep(recipe_file: Path, tmp_path: Path) -> None:
    """SIGTERM while images are being read: as Ctrl-C."""
    program = (
        "import os, signal, fcn.training.run as run, fcn.cli\n"
        "run.preprocessing_of = lambda *_: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"raise SystemExit(fcn.cli.main(['train', {str(recipe_file)!r}]))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 130
    assert result.stderr.strip() == "Interrupted; nothing was trained yet."
