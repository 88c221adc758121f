"""What is refused, and how: one line of JSON and a status."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import Gauge
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """Of one server. Pictures that are inside take at most ``queue`` times an upload, its pixels and its results."""

    queue: int = 16
    """Pictures that are received, waiting or worked on; one more is told to come again."""
    upload_bytes: int = 20_000_000
    megapixels: float = 25
    receive_seconds: float = 60
    """In which an upload must have arrived."""


class Refused(HTTPException):
    """A request that is answered with ``status`` and one line."""

    def __init__(self, status: int, why: object, **headers: str) -> None:
        super().__init__(status, " ".join(str(why).split()), headers)

    def response(self) -> JSONResponse:
        return refusal(self)


def refusal(error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


class Gate:
    """Lets ``most`` requests in at a time; any other is answered at once with 503 and when to come again.

    A request is inside until its answer is sent, so that neither uploads nor answers add up.
    """

    def __init__(self, app: ASGIApp, most: int, backlog: Callable[[], float], gauge: Gauge) -> None:
        """``backlog``: seconds that what is inside takes. ``gauge`` shows how many requests that are."""
        self.app, self.most, self.backlog, self.gauge = app, most, backlog, gauge
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.inside >= self.most:
            later = max(1, math.ceil(self.backlog()))
            line = (
                f"{self.inside} pictures are being worked on, and no more are taken at a time; try again in {later} s"
            )
            await Refused(503, line, **{"Retry-After": str(later)}).response()(scope, receive, send)
            return
        self._enter(1)
        try:
            await self.app(scope, receive, send)
        finally:
            self._enter(-1)

    def _enter(self, count: int) -> None:
        self.inside += count
        self.gauge.set(self.inside)
