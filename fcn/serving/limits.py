"""What is refused, and how: one line of JSON and a status."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse


@dataclass(frozen=True)
class Limits:
    """Of one server. Pictures that are inside take at most ``queue`` times an upload, its pixels and its results."""

    queue: int = 16
    """Pictures that are received, waiting or worked on; one more is told to come again."""
    upload_bytes: int = 20_000_000
    megapixels: float = 25
    transfer_seconds: float = 60
    """In which an upload must have arrived, and an answer been taken."""


class Refused(HTTPException):
    """A request that is answered with ``status`` and one line."""

    def __init__(self, status: int, why: object, **headers: str) -> None:
        super().__init__(status, " ".join(str(why).split()), headers)

    def response(self) -> JSONResponse:
        return refusal(self)


def refusal(error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
