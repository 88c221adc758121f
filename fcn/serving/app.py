"""The routes: what is asked, from the request to the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from anyio import CapacityLimiter, to_thread
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ..data.opening import allow_megapixels
from ..inference.machine import out_of_memory
from ..inference.predictor import Predictor
from .answers import Output, classes_of, description, labeled, png_of
from .gate import Gate
from .guard import Guard
from .limits import Limits, Refused, refusal
from .metrics import Metrics
from .openapi import document
from .uploads import decoded, received
from .worker import Answer, Worker

PAGE = Path(__file__).with_name("page")


def create_app(networks: Mapping[str, Predictor], limits: Limits, names: Iterable[str] = ()) -> ASGIApp:
    """An ASGI application that serves one network or several, by name.

    ``names``: by which it may be reached, beside addresses, ``localhost`` and this machine's. Images of more than
    ``limits.megapixels`` are refused in all of this process. Raises ``ValueError`` for networks that see more than
    colors.
    """
    for name, predictor in networks.items():
        if predictor.further is not None:
            raise ValueError(
                f"{name}: this network sees color and {predictor.further}, and one picture is sent at a time"
            )
    allow_megapixels(limits.megapixels)
    metrics = Metrics()
    return Guard(_Service(networks, limits, metrics).app, metrics, names)


class _Service:
    def __init__(self, networks: Mapping[str, Predictor], limits: Limits, metrics: Metrics) -> None:
        self.networks, self.limits, self.metrics = networks, limits, metrics
        self.threads = CapacityLimiter(2)
        """For decoding and encoding: each needs memory for a picture more."""
        gate = Middleware(Gate, limits=limits, backlog=lambda: self.worker.backlog, gauge=metrics.inside)
        self.app = Starlette(
            routes=[
                Route("/", _file(PAGE / "index.html")),
                *(Route(f"/{path.name}", _file(path)) for path in sorted(PAGE.iterdir()) if path.suffix != ".html"),
                Route("/predict", self.predict, methods=["POST"], middleware=[gate]),
                Route("/networks", self.about),
                Route("/health", self.health),
                Route("/metrics", self.numbers),
                Route("/openapi.json", self.described),
            ],
            exception_handlers={HTTPException: _refused, Exception: _unforeseen},
            lifespan=self.lifespan,
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.worker = Worker(self.networks)
        try:
            yield
        finally:
            await to_thread.run_sync(self.worker.close)

    async def predict(self, request: Request) -> Response:
        asked = Asked.of(request.query_params, self.networks)
        predictor = self.networks[asked.network]
        clock = _Clock(self.metrics)
        content = await received(request, self.limits)
        clock.tick("receive")
        image = await to_thread.run_sync(decoded, content, self.limits, limiter=self.threads)
        del content
        clock.tick("decode")
        answer = await self._answer(request, asked.network, image)
        clock.tick("wait", answer.waited)
        clock.tick("network", answer.ran)
        self.metrics.batch.observe(answer.batch)
        self.metrics.pixels.inc(image.shape[0] * image.shape[1])
        found = labeled(predictor, image, answer.labels, answer.confidence)
        if asked.output != "json":
            png = await to_thread.run_sync(png_of, found[asked.task], asked.output, limiter=self.threads)
            clock.tick("encode")
            return Response(png, media_type="image/png", headers={"Server-Timing": clock.header})
        told = await to_thread.run_sync(description, found, asked.picture, limiter=self.threads)
        clock.tick("encode")
        told |= {"network": asked.network, "precision": predictor.note, "batch": answer.batch}
        return JSONResponse(told | {"seconds": clock.seconds}, headers={"Server-Timing": clock.header})

    async def _answer(self, request: Request, network: str, image: np.ndarray) -> Answer:
        """Of the worker; a request whose client has gone leaves the queue."""
        height, width = image.shape[:2]
        future = asyncio.wrap_future(self.worker.submit(network, image))
        gone = asyncio.ensure_future(request.receive())  # after the body there is only the end of the connection
        either: set[asyncio.Future[Any]] = {future, gone}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise Refused(400, "the client went away")
            return future.result()
        except ValueError as error:  # smaller than the network can see
            raise Refused(422, f"upload: {error}") from None
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise Refused(413, f"upload: {width} x {height} pixels do not fit memory") from None
        finally:
            future.cancel()
            gone.cancel()

    async def about(self, _: Request) -> Response:
        networks = [
            {
                "name": name,
                "tasks": [{"name": task, "classes": classes_of(each)} for task, each in predictor.tasks.items()],
            }
            for name, predictor in self.networks.items()
        ]
        return JSONResponse({"networks": networks, "limits": asdict(self.limits)})

    async def health(self, _: Request) -> Response:
        if not self.worker.alive:
            raise Refused(503, "the thread of the networks has ended")
        return JSONResponse({"status": "ok"})

    async def numbers(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    async def described(self, _: Request) -> Response:
        return JSONResponse(document(list(self.networks), self.limits))


@dataclass(frozen=True)
class Asked:
    """The parameters of a request."""

    network: str
    task: str
    output: Output
    picture: bool

    @classmethod
    def of(cls, query: QueryParams, networks: Mapping[str, Predictor]) -> Asked:
        """Raises ``Refused``."""
        network = _one_of(query, "network", list(networks))
        asked = cls(
            network,
            _one_of(query, "task", list(networks[network].tasks)),
            cast(Output, _one_of(query, "output", list(get_args(Output)))),
            _one_of(query, "picture", ["false", "true"]) == "true",
        )
        unknown = set(query) - {each.name for each in fields(cls)}
        if unknown:
            raise Refused(
                422, f"unknown parameter {min(unknown)!r}; there are {', '.join(each.name for each in fields(cls))}"
            )
        return asked


def _one_of(query: QueryParams, name: str, choices: list[str]) -> str:
    """The first of ``choices`` unless another is given."""
    value = query.get(name, choices[0])
    if value not in choices:
        raise Refused(422, f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value


class _Clock:
    """Where a picture's time goes, part by part."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics, self.last = metrics, time.perf_counter()
        self.seconds: dict[str, float] = {}

    def tick(self, part: str, seconds: float | None = None) -> None:
        """``part`` took ``seconds``, or the time since the last call."""
        now = time.perf_counter()
        self.seconds[part] = round(now - self.last if seconds is None else seconds, 6)
        self.metrics.seconds.labels(part).observe(self.seconds[part])
        self.last = now

    @property
    def header(self) -> str:
        return ", ".join(f"{part};dur={1000 * seconds:.1f}" for part, seconds in self.seconds.items())


def _file(path: Path) -> Callable[[Request], Awaitable[Response]]:
    async def send(_: Request) -> Response:
        return FileResponse(path)

    return send


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error)


async def _unforeseen(_: Request, error: Exception) -> Response:
    """The server logs the rest."""
    return JSONResponse({"error": f"unexpected {type(error).__name__}; the server's log says where"}, 500)
