"""The one thread that runs the networks: requests that wait and have one size run as one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..inference.predictor import Predictor
from ..inference.tiling import Tile


class Answer(NamedTuple):
    labels: np.ndarray
    """``[(T, )H, W]``."""
    confidence: np.ndarray
    """float32, of the shape of ``labels``."""
    waited: float
    """Seconds."""
    ran: float
    """Seconds of the whole batch."""
    batch: int


@dataclass(eq=False)
class _Job:
    network: str
    image: np.ndarray
    future: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)

    @property
    def kind(self) -> tuple[str, tuple[int, ...]]:
        """Jobs of one kind can run together."""
        return self.network, self.image.shape[:2]

    @property
    def pixels(self) -> int:
        return int(self.image.shape[0] * self.image.shape[1])


class Worker:
    """A thread that takes the oldest job and those like it, of at most ``batch_pixels`` together; between the tiles of
    a large picture a batch of small ones has its turn.

    It is there until ``close``. The number of jobs that wait is for those to bound who submit them.
    """

    def __init__(self, networks: Mapping[str, Predictor], batch_pixels: int = 1 << 20) -> None:
        self.networks, self.batch_pixels = networks, batch_pixels
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._pace = 0.0  # seconds that a pixel took of late
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="fcn networks", daemon=True)
        self._thread.start()

    def submit(self, network: str, image: np.ndarray) -> Future[Answer]:
        """The future raises what the network does; cancelled before its turn, it keeps no memory."""
        job = _Job(network, image)
        with self._changed:
            if self._closed:
                raise RuntimeError("the server is ending")
            self._waiting.append(job)
            self._changed.notify()
        job.future.add_done_callback(self._forget)
        return job.future

    def _forget(self, future: Future[Answer]) -> None:
        """The image of a cancelled job does not wait for its turn. (A future that knew its job would keep it alive.)"""
        with self._changed:
            self._waiting = deque(job for job in self._waiting if job.future is not future)

    @property
    def backlog(self) -> float:
        """About how many seconds the jobs take that are not done."""
        with self._changed:
            return self._pace * sum(job.pixels for job in [*self._running, *self._waiting])

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Cancels what waits, and returns when what runs has ended: a batch, or a tile of a large picture."""
        with self._changed:
            self._closed = True
            for job in list(self._waiting):
                job.future.cancel()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
            self._step()  # whose images are gone before the next is waited for

    def _step(self, small: bool = False) -> None:
        """Runs the oldest job and those like it, if there is one; with ``small``, of those that need no tiles."""
        with self._changed:
            jobs = self._next([job for job in self._waiting if not (small and self._is_large(job))])
            self._running += jobs
        if jobs:
            self._run(jobs)
        with self._changed:
            self._running = [job for job in self._running if job not in jobs]

    def _next(self, waiting: list[_Job]) -> list[_Job]:
        if not waiting:
            return []
        first = waiting[0]
        most = min(self.networks[first.network].batch, max(1, self.batch_pixels // first.pixels))
        jobs = [job for job in waiting if job.kind == first.kind][:most]
        for job in jobs:
            self._waiting.remove(job)
        return [job for job in jobs if job.future.set_running_or_notify_cancel()]

    def _is_large(self, job: _Job) -> bool:
        tile = self.networks[job.network].tile
        return tile is not None and max(job.image.shape[:2]) > tile

    def _tiles(self, tiles: list[Tile]) -> Iterator[Tile]:
        """Of a large picture, which lets a batch of small ones pass after each, and which the end does not wait for."""
        for tile in tiles:
            if self._closed:
                raise RuntimeError("the server is ending")
            yield tile
            self._step(small=True)

    def _run(self, jobs: list[_Job]) -> None:
        started = time.perf_counter()
        try:
            found = self.networks[jobs[0].network].with_confidence([job.image for job in jobs], self._tiles)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            else:  # too much memory together, say
                for job in jobs:
                    self._run([job])
            return
        ran = time.perf_counter() - started  # of a large picture with what passed it
        pace = ran / len(jobs) / jobs[0].pixels
        self._pace = pace if self._pace == 0 else 0.8 * self._pace + 0.2 * pace
        for job, (labels, confidence) in zip(jobs, found, strict=True):
            job.future.set_result(Answer(labels, confidence, started - job.since, ran, len(jobs)))
