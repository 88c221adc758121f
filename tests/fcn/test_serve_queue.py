"""Requests that wait, run together, are too many, too slow or give up, and networks that fail."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

for package in ("prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (the extra serve)")

from fcn.serving.limits import Limits  # noqa: E402
from fcn.serving.worker import Worker  # noqa: E402
from tests.fcn.serving import GOOD, LIMITS, Server, file_of, picture, predictor, serving, started, until  # noqa: E402


@pytest.fixture
def server() -> Iterator[Server]:
    with started() as running:
        yield running


class Held:
    """A network that waits to be let go."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.batches = threading.Event(), []
        run = server.predictor.with_confidence

        def held(images: list[np.ndarray], progress: Any) -> Any:
            self.batches.append(len(images))
            assert self.go.wait(20)
            return run(images, progress)

        monkeypatch.setattr(server.predictor, "with_confidence", held)


def test_one_more_than_fits_is_told_when_to_come_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(server, monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(server.post, GOOD) for _ in range(LIMITS.queue)]
        until(lambda: server.metric("fcn_pictures_inside") == LIMITS.queue)
        refused = server.post(GOOD)
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["error"].startswith("6 pictures are being worked on")
        assert server.get("/health").status == 200
        held.go.set()
        assert [each.result().status for each in waiting] == [200] * LIMITS.queue
    assert server.post(GOOD).status == 200


def test_what_waits_and_has_one_size_runs_together(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture(seed, 60, 80 if seed % 2 else 50) for seed in range(6)]
    alone = [server.predictor(image) for image in images]
    held = Held(server, monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        replies = []
        for index, image in enumerate(images):  # in this order
            replies.append(pool.submit(server.post, file_of(image)))
            until(lambda index=index: server.metric('fcn_seconds_count{part="decode"}') == index + 1)
            until(lambda: held.batches)
        held.go.set()
        for reply, labels in zip(replies, alone, strict=True):
            np.testing.assert_array_equal(reply.result().pixels, labels)
    assert held.batches == [1, 3, 2]  # the first; those of the second's size; the rest of the first's
    assert server.metric("fcn_batch_sum") == 1 + 3 * 3 + 2 * 2


def test_who_goes_leaves_the_queue(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(server, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.post, GOOD)
        until(lambda: held.batches)
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/predict", GOOD)
        until(lambda: server.metric("fcn_pictures_inside") == 2)
        until(lambda: server.metric('fcn_seconds_count{part="decode"}') == 2)
        connection.close()
        until(lambda: server.metric("fcn_pictures_inside") == 1)
        held.go.set()
        assert first.result().status == 200
    assert server.post(GOOD).status == 200
    assert held.batches == [1, 1]


def test_small_pictures_pass_a_large_one(server: Server) -> None:
    network = server.predictor
    large, small = picture(0, 900, 900), picture(1)  # tiles are of 256
    worker = Worker({"": network})
    first = worker.submit("", large)
    until(lambda: first.running())
    second = worker.submit("", small)
    np.testing.assert_array_equal(second.result(20).labels, network(small))
    assert not first.done()
    np.testing.assert_array_equal(first.result(60).labels, network(large))
    worker.close()


def test_a_cancelled_job_keeps_no_image(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(server, monkeypatch)
    worker = Worker({"coarse": server.predictor})
    first = worker.submit("coarse", picture())
    until(lambda: held.batches)
    image = picture(1).copy()
    gone = weakref.ref(image)
    future = worker.submit("coarse", image)
    del image
    assert gone() is not None
    assert future.cancel()
    assert gone() is None
    held.go.set()
    assert first.result(20).labels.shape == (60, 80)
    large = worker.submit("coarse", picture(0, 2000, 2000))  # in tiles of 256
    until(lambda: len(held.batches) == 2)
    worker.close()
    with pytest.raises(RuntimeError, match="the server is ending"):
        large.result(0)
    with pytest.raises(RuntimeError, match="the server is ending"):
        worker.submit("coarse", picture())


def test_an_upload_that_does_not_arrive(server: Server) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as half:
        half.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        assert half.recv(4096).startswith(b"HTTP/1.1 408 ")
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as gone:
        gone.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        until(lambda: server.metric("fcn_pictures_inside") == 1)
    until(lambda: server.metric("fcn_pictures_inside") == 0)
    assert server.post(GOOD).status == 200


def test_an_answer_that_is_not_taken() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1200, 3)).astype(np.uint8)
    body = file_of(noise, "JPEG")
    network = predictor()
    network.tile = None
    head = f"POST /predict?output=overlay HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving({"": network}, Limits(transfer_seconds=2)) as server, socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", server.port))
        idle.sendall(head.encode() + body)
        until(lambda: server.metric('fcn_seconds_count{part="encode"}') == 1)
        assert server.metric("fcn_pictures_inside") == 1
        until(lambda: server.metric("fcn_pictures_inside") == 0)
        assert server.post(GOOD).status == 200


def test_a_network_that_fails(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture that does not fit memory fails alone; what nobody foresaw is a 500, and the server goes on."""
    run = server.predictor.with_confidence
    calls = []

    def failing(images: list[np.ndarray], progress: Any) -> Any:
        calls.append(len(images))
        if len(images) > 1 or images[0][0, 0, 0] == 1:
            raise MemoryError
        if images[0][0, 0, 0] == 2:
            raise RuntimeError("surprise\nof several lines")
        if images[0][0, 0, 0] == 3:
            raise ValueError("a picture of 60 x 80 is too small")
        time.sleep(0.3)  # so that the next wait
        return run(images, progress)

    monkeypatch.setattr(server.predictor, "with_confidence", failing)
    images = [picture(seed).copy() for seed in range(5)]
    for first, image in zip((0, 1, 2, 3, 0), images, strict=True):
        image[0, 0, 0] = first
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.post, file_of(images[0]))
        until(lambda: calls)
        replies = [first, *(pool.submit(server.post, file_of(image)) for image in images[1:])]
        got = [reply.result() for reply in replies]
    assert [reply.status for reply in got] == [200, 413, 500, 422, 200]
    assert got[1].json == {"error": "upload: 80 x 60 pixels do not fit memory"}
    assert got[2].json == {"error": "unexpected RuntimeError; the server's log says where"}
    assert got[3].json == {"error": "upload: a picture of 60 x 80 is too small"}
    np.testing.assert_array_equal(got[4].pixels, run([images[4]])[0][0])
