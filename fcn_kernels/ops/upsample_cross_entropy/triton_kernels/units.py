"""What the kernels agree on."""

from __future__ import annotations

import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)

# Arguments whose values kernels are not specialised for.
PER_CALL = [
    "classes", "h", "w", "cells", "blocks", "plane", "pitch", "rows_size", "rows_step", "rows_rest", "rows_denominator",
    "rows_reach", "rows_least", "rows_first", "rows_runs", "columns_size", "columns_step", "columns_rest",
    "columns_denominator", "columns_reach", "columns_least", "columns_first", "columns_runs", "count",
]  # fmt: skip
