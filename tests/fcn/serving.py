"""A server in a thread of this process, and how tests ask it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fcn.cli.serve import listening, server_of
from fcn.data.palette import voc_palette
from fcn.data.preprocessing import IMAGENET
from fcn.inference.predictor import Predictor
from fcn.serving.app import create_app
from fcn.serving.limits import Limits
from fcn.weights import Weights
from tests.fcn.networks import random_model

LIMITS = Limits(queue=6, upload_bytes=300_000, megapixels=0.5, transfer_seconds=0.5)


class Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def pixels(self) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(self.body)))


class Server:
    def __init__(self, port: int, predictor: Predictor) -> None:
        self.port, self.predictor = port, predictor
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers=headers)

    def post(self, body: Any, query: str = "", headers: Mapping[str, str] | None = None) -> Reply:
        return self.ask("POST", f"/predict?{query}", body, headers)

    def metric(self, name: str) -> float:
        lines = self.get("/metrics").body.decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


@contextlib.contextmanager
def serving(
    networks: Mapping[str, Predictor], limits: Limits | None = None, names: Iterable[str] = ()
) -> Iterator[Server]:
    """On a free port of this machine; Pillow's limit is afterwards as before."""
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        listener = listening("127.0.0.1", 0)
        server = server_of(create_app(networks, limits or Limits(), names))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            until(lambda: server.started)
            yield Server(listener.getsockname()[1], next(iter(networks.values())))
        finally:
            server.should_exit = True
            thread.join()
            Image.MAX_IMAGE_PIXELS = before


def started() -> contextlib.AbstractContextManager[Server]:
    """Two networks, and narrow limits."""
    return serving({"coarse": predictor(), "fine": predictor(1)}, LIMITS, ["photos.example"])


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def predictor(seed: int = 0, **options: Any) -> Predictor:
    model = random_model("small", seed, stride=8, **{"classes": 4, **options})
    count = model.config.classes
    names = [f"class {index}" for index in range(count - 1)] + ["<b>crème</b>"]
    return Predictor(Weights(model.eval(), names, voc_palette(count), IMAGENET, {}), "cpu", tile=256)


def picture(seed: int = 0, height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth colors, so that labels are areas."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def file_of(image: np.ndarray | Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


GOOD = file_of(picture())
"""An upload."""
