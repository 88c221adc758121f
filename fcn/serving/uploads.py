"""From a request to the pixels of one picture, or to the line that says why there are none."""

from __future__ import annotations

import asyncio
import io

import numpy as np
from starlette.requests import ClientDisconnect, Request

from ..data.files import read_image
from ..errors import DataError, TooLargeError
from .limits import Limits, Refused


async def received(request: Request, limits: Limits) -> io.BytesIO:
    """The body. Raises ``Refused``."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise Refused(415, "a form; the picture itself is wanted as the body (curl --data-binary @PICTURE)")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal():
        _check_size(int(announced), limits)
    content = io.BytesIO()
    try:
        async with asyncio.timeout(limits.transfer_seconds):
            async for chunk in request.stream():
                _check_size(content.tell() + len(chunk), limits)
                content.write(chunk)
    except TimeoutError:
        raise Refused(408, f"the upload did not arrive within {limits.transfer_seconds:g} s") from None
    except ClientDisconnect:
        raise Refused(400, "the upload ended before its end") from None
    if content.tell() == 0:
        raise Refused(400, "an empty body; a picture is wanted (curl --data-binary @PICTURE)")
    content.seek(0)
    return content


def decoded(content: io.BytesIO, limits: Limits) -> np.ndarray:
    """``[H, W, 3]``, uint8 or uint16, as ``read_image`` gives it. Raises ``Refused``."""
    try:
        return read_image("upload", content)
    except TooLargeError as error:
        raise Refused(413, f"{error} ({limits.megapixels:g} now)") from None
    except DataError as error:
        raise Refused(415, error) from None
    except MemoryError:
        raise Refused(413, "upload: its pixels do not fit memory") from None


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.upload_bytes:
        most = limits.upload_bytes / 1e6
        raise Refused(413, f"an upload of {size / 1e6:.3g} MB or more; at most {most:g} MB are taken")
