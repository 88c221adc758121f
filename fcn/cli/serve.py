"""label pictures in the browser: a page on this machine, and an HTTP API
Two networks are shown side by side. Nothing that is sent is kept. /openapi.json describes the API; /health and /metrics
say how the server does.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..arguments import count, port
from ._options import add_max_megapixels, add_precision

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights")
    parser.add_argument("weights2", nargs="?", help="another network, to compare")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument("--port", type=port, default=8000, help="0 is any that is free (default: 8000)")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name by which the server may be asked, of a proxy, say; may be repeated",
    )
    add_precision(parser, default="float32")
    parser.add_argument(
        "--tile", type=count, default=1024, metavar="N", help="run larger pictures in tiles of N x N (default: 1024)"
    )
    parser.add_argument(
        "--queue", type=count, default=16, metavar="N", help="so many pictures at a time; more get 503 (default: 16)"
    )
    parser.add_argument(
        "--max-upload-mb", type=count, default=20, metavar="N", help="of a picture's file (default: 20)"
    )
    add_max_megapixels(parser, default=25)


def run(options: argparse.Namespace, _: list[str]) -> int:
    from ..errors import ConfigError

    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'fcn-kernels[serve]'") from None
    listener = listening(options.host, options.port)
    with listener:
        from ..inference.predictor import Predictor
        from ..serving.app import create_app
        from ..serving.limits import Limits

        paths = [path for path in (options.weights, options.weights2) if path is not None]
        networks = {
            name: Predictor(path, precision=options.precision, tile=options.tile)
            for name, path in zip(names_of(paths), paths, strict=True)
        }
        limits = Limits(options.queue, options.max_upload_mb * 1_000_000, options.max_megapixels)
        app = create_app(networks, limits, [options.host, *options.allow_host])
        say_where(listener)
        with contextlib.suppress(KeyboardInterrupt):  # how a server is meant to end; what was asked is answered
            server_of(app).run([listener])
        print("fcn serve: stopped", file=sys.stderr)
    return 0


def server_of(app: ASGIApp) -> uvicorn.Server:
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=10,
    )
    return uvicorn.Server(config)


def listening(host: str, number: int) -> socket.socket:
    """A socket that listens; before networks are loaded, since that takes longer than to see that a port is in use."""
    from ..errors import ConfigError

    try:
        family, *_, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {number} of {host} is in use; --port takes another, --port 0 any free one"
            ) from None
        raise ConfigError(f"cannot listen at {host}, port {number}: {error.strerror or error}") from None


def names_of(weights: list[str]) -> list[str]:
    """Of networks: those of their files, or with folders where these are equal."""
    from ..data.tasks import distinct

    paths = [Path(path) for path in weights]
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return distinct([f"{path.absolute().parent.name}/{path.stem}" for path in paths])


def say_where(listener: socket.socket) -> None:
    host, number = listener.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    where = f"[{host}]" if address.version == 6 else host
    reach = "this machine alone can reach it" if address.is_loopback else "other machines can reach it"
    print(f"fcn serve: http://{where}:{number} ({reach}; Ctrl-C ends it)", flush=True)
    if not address.is_loopback:
        print("fcn serve: warning: whoever reaches it can use it: no password, no encryption", file=sys.stderr)
