"""How many requests are worked on at a time, from their first byte to the last of their answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from prometheus_client import Gauge
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Limits, Refused


class _NotTakenError(Exception):
    """The client does not read its answer."""


class Gate:
    """Lets ``limits.queue`` requests in at a time; any other is answered at once with 503 and when to come again.

    A request is inside until its answer is taken, so that neither uploads nor answers add up; who does not take it in
    time is cut off.
    """

    PART = 1 << 16
    """Bytes that are sent at a time: the server waits for the client before the next."""

    def __init__(self, app: ASGIApp, limits: Limits, backlog: Callable[[], float], gauge: Gauge) -> None:
        """``backlog``: seconds that what is inside takes. ``gauge`` shows how many requests that are."""
        self.app, self.limits, self.backlog, self.gauge = app, limits, backlog, gauge
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.inside >= self.limits.queue:
            later = max(1, math.ceil(self.backlog()))
            line = (
                f"{self.inside} pictures are being worked on, and no more are taken at a time; try again in {later} s"
            )
            await Refused(503, line, **{"Retry-After": str(later)}).response()(scope, receive, send)
            return

        async def in_parts(message: Message) -> None:
            body = message.get("body", b"")
            try:
                async with asyncio.timeout(self.limits.transfer_seconds):
                    for start in range(0, len(body), self.PART):
                        part = body[start : start + self.PART]
                        await send({"type": message["type"], "body": part, "more_body": True})
                    await send({**message, "body": b""} if body else message)
            except TimeoutError:
                raise _NotTakenError from None

        self._enter(1)
        try:
            await self.app(scope, receive, in_parts)
        except _NotTakenError:
            pass  # the server closes the connection of an answer that is not whole
        finally:
            self._enter(-1)

    def _enter(self, count: int) -> None:
        self.inside += count
        self.gauge.set(self.inside)
