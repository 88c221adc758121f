"""What stands before all requests: other sites' are refused, every answer says how it may be used, and is counted."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import Refused
from .metrics import Metrics

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """Refuses what a page of another site makes a visitor's browser send.

    The Host must be an address, this machine's name or one of ``names``: a site whose name is made to lead here (DNS
    rebinding) is neither. The Origin, where a browser sends it, must be this server.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, names: Iterable[str] = ()) -> None:
        self.app, self.metrics = app, metrics
        self.names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                self.metrics.responses.labels(message["status"]).inc()
            await send(message)

        why = self.unwelcome(Headers(scope=scope))
        await (self.app if why is None else Refused(403, why).response())(scope, receive, answer)

    def unwelcome(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            known = name in self.names or _is_address(name)
            foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        except ValueError:  # brackets that are no address
            known = foreign = False
        if not known:
            return f"host {host!r} is not a name of this server; 'fcn serve --allow-host NAME' adds one"
        return f"a page of {origin} may not use this server" if foreign else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
