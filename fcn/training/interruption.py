"""Ctrl-C, and SIGTERM as batch systems send it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from ..errors import Interrupted

Handler = Callable[[int, Any], None]


class Handlers:
    """A handler of both signals, from ``install`` to ``restore``. Outside of the main thread Python allows none."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.before: dict[int, Any] = {}

    def install(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.handler)

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


@contextmanager
def interruptible() -> Iterator[None]:
    """Either signal raises ``Interrupted`` where the program is."""
    handlers = Handlers(_raise)
    handlers.install()
    try:
        yield
    finally:
        handlers.restore()


def is_first_process() -> bool:
    """Of the processes of a run: the one that speaks and writes."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _raise(number: int, frame: Any) -> None:
    raise Interrupted
