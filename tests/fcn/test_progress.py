"""How far a run is, in a terminal of 50 columns and in a pipe."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

LINE = r"([12])/2 FCN-(32|16)s (\d)/2: loss [\d.e-]+ IU [\d.]+ left \d\d:\d\d"


def command(recipe_file: Path) -> list[str]:
    return [sys.executable, "-m", "fcn", "train", str(recipe_file), "--trainer.log_every=1"]


def test_a_pipe_gets_a_line_for_each_validation(recipe_file: Path) -> None:
    done = subprocess.run(command(recipe_file), capture_output=True, text=True, check=True, timeout=300)
    lines = done.stderr.splitlines()
    warned = [line for line in lines if line.startswith("fcn train: FCN-")]
    assert all("every pixel is labeled 'ground'" in line or "not a pixel is found" in line for line in warned)
    assert "Warning" not in done.stderr
    lines = [line for line in lines if " FCN-" in line and line not in warned]
    assert [re.fullmatch(LINE, line).groups() for line in lines] == [  # type: ignore[union-attr]
        ("1", "32", "1"), ("1", "32", "2"), ("2", "16", "1"), ("2", "16", "2"),
    ]  # fmt: skip
    assert lines[-1].endswith("left 00:00")
    events = EventAccumulator(str(recipe_file.parent / "run/fcn16s"))
    events.Reload()
    wanted = {"train_loss", "rate", "val_loss", "val_mean_iu", "class_iu/ground", "class_iu/square", "class_iu/disk"}
    assert wanted <= set(events.Tags()["scalars"])
    assert next(iter(events.Scalars("rate"))).value == pytest.approx(0.003)


def test_a_terminal_gets_a_bar_of_its_width(recipe_file: Path) -> None:
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    with subprocess.Popen(command(recipe_file), stdout=subprocess.DEVNULL, stderr=theirs) as run:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 4096):
                written += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert run.returncode == 0
    bars = [line for line in re.split(r"[\r\n]|\x1b\[A", written.decode()) if re.match(r"[12]/2 FCN-\d\ds ", line)]
    assert len(bars) > 2
    assert max(map(len, bars)) <= 50
    assert re.fullmatch(r"2/2 FCN-16s 2/2 \|\S+ *\| loss [\d.e-]+ IU [\d.]+ left 00:00", bars[-1])
