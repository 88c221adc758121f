"""Text of a user's, such as names of classes, in a terminal: shown as what it is, never obeyed."""

from __future__ import annotations

import unicodedata

_TURNING = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that reorder what stands around them."""


def shown(text: str) -> str:
    """``text`` with control characters, lone surrogates and marks of direction as escapes (``\\x1b``)."""
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in ("Cc", "Cs") or char in _TURNING
        else char
        for char in text
    )
