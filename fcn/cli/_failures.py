"""What a command says of an exception: one line, whatever it was."""

from __future__ import annotations

import os
import tempfile
import traceback

from ..errors import what_to_install


def explained(error: Exception) -> str:
    """Errors that were foreseen explain themselves; of any other the traceback is in a file that the line names."""
    if isinstance(error, ModuleNotFoundError):
        needed = what_to_install(error)
        if needed is not None:
            return f"this needs {needed}"
    # ConfigError, DataError and others that name what they are about are ValueErrors.
    foreseen = isinstance(error, (ValueError, TypeError, OSError)) and str(error)
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "allocate memory" in line or "out of memory" in line:
        return f"out of memory: {_shortened(line)}"
    if "DataLoader worker" in line:
        return (
            f"a process that reads images ended ({_shortened(line)}): with data.workers 0 none is needed; where "
            "/dev/shm is small, as in containers, give it more (docker run --shm-size 2g)"
        )
    return line if foreseen else f"unexpected {type(error).__name__}: {_shortened(line)} {_kept(error)}"


def _shortened(line: str, most: int = 300) -> str:
    return line if len(line) <= most else f"{line[:most]}..."


def _kept(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        descriptor, path = tempfile.mkstemp(prefix="fcn-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return "(run it again with FCN_TRACEBACK=1 for where that was)"
    return f"(where that was: {path})"
