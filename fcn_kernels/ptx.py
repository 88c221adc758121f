"""What PTX, the intermediate language of NVIDIA's compilers, says of a kernel's access to global memory."""

from __future__ import annotations

import re
from collections import Counter

# ld.global.nc.v4.u32, st.global.wb.v2.b32, ld.global.L1::evict_last.b16, ...
_ACCESS = r"\b{}\.global(?:\.(?!v\d)[\w:]+)*?(?:\.v(\d))?\.[bfsu](\d+)\b"
_COPY = re.compile(r"\bcp\.async\.c[ag]\.shared\.global[^,;]*,[^,;]*, *(\w+)")  # to shared memory


def accesses(ptx: str, access: str) -> Counter[int]:
    """How many instructions load (``"ld"``) or store (``"st"``) so many bytes of global memory for a thread."""
    found = re.findall(_ACCESS.format(access), ptx)
    widths = Counter(int(count or 1) * int(bits) // 8 for count, bits in found)
    if access == "ld":
        widths.update(int(size, 0) for size in _COPY.findall(ptx))
    return widths


def in_words(widths: Counter[int]) -> str:
    """``16x24,4x6``: 24 accesses of 16 bytes and 6 of 4; ``-`` where there are none."""
    return ",".join(f"{width}x{widths[width]}" for width in sorted(widths, reverse=True)) or "-"
