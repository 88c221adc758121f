"""How Triton kernels cut output pixels into patches: pixels that sample the same four scores.

Inside a patch every class's score is bilinear in the pixel's index, for any BilinearGrid. Along an axis, pixels
between the same two input pixels are cut into *runs*, each of as many *pieces* of at most RUN pixels; a lane takes a
piece of a run of rows and of a run of columns, so nothing is shared between lanes but the four scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

# Cells count from the first one that a pixel lies in. Scores are read from planes with this much border around them, so
# that cells beyond it can be moved onto it.
BORDER = tl.constexpr(2)


@dataclass(frozen=True)
class Axis:
    """One axis of a grid, cut into runs.

    Attributes:
        ints: arguments of ``run_of``, in order.
        first: the cell of pixel 0, in input pixels.
        inverse, slope: 1 / denominator; cells from pixel to pixel.
        runs: how many there are.
        run, pieces: RUN and PIECES; sparse: pixels are more than a cell apart (or not apart at all), and are runs.
        wide: coordinates take more than 32 bits.
    """

    ints: dict[str, int]
    first: int
    inverse: float
    slope: float
    runs: int
    run: int
    pieces: int
    sparse: bool
    wide: bool

    def arguments(self, name: str) -> dict[str, Any]:
        own = {"first": self.first, "inverse": self.inverse, "slope": self.slope, "runs": self.runs}
        return {f"{name}_{key}": value for key, value in {**self.ints, **own}.items()}


def cut(grid: list[int], axis: int, input_size: int, longest: int, most_pieces: int) -> Axis:
    """Axis 0 or 1 of a grid ``as_ints``, in runs of up to ``most_pieces`` pieces of up to ``longest`` pixels."""
    size, (step, origin, denominator) = grid[axis], grid[2 + 3 * axis : 5 + 3 * axis]
    first, rest = divmod(origin, denominator)
    sparse = step == 0 or step > denominator
    reach, least, parts, pieces, run, runs = 1, 0, 1, 1, 1, size
    if not sparse:
        reach = -(-denominator // step)  # the most pixels in a cell
        # Runs start where the cell does, not where the image does: what is computed for pixels that do not exist then
        # stays in range. Where a cell is larger than the image, at the image.
        least = -reach if reach <= size else 0
        pixels = min(reach, size)
        wanted = -(-pixels // longest)
        pieces = min(most_pieces, triton.next_power_of_2(wanted))
        parts = -(-wanted // pieces)
        run = -(-pixels // (pieces * parts))
        runs = ((step * max(size - 1, 0) + rest) // denominator + 1) * parts
    ints = {
        "size": size, "step": step, "rest": rest, "denominator": denominator,
        "parts": parts, "reach": reach, "least": least,
    }  # fmt: skip
    wide = step * (size + 2 * reach + 2) + denominator * (input_size + abs(first) + 4) >= 2**31
    return Axis(ints, first, 1 / denominator, step / denominator, runs, run, pieces, sparse, wide)


@triton.jit
def _first_pixel(cell, step, rest, denominator, reach, least):
    """The first pixel at or after the start of ``cell``, or ``least``."""
    behind = cell * denominator - rest + step - 1
    return tl.maximum((behind + reach * step) // step - reach, least)  # what is divided is not negative


@triton.jit
def run_of(
    run, piece, size, step, rest, denominator, parts, reach, least, inverse,
    RUN: tl.constexpr, PIECES: tl.constexpr, SPARSE: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of a lane: its cell, its first pixel, that pixel's position in the cell, and the first pixel that is not its own.

    The first pixel may be negative.
    """
    if WIDE:
        run = run.to(tl.int64)
    if SPARSE:
        position = run * step + rest
        cell = position // denominator
        start = run
        end = run + 1
    else:
        cell = run // parts
        start = _first_pixel(cell, step, rest, denominator, reach, least) + (run % parts * PIECES + piece) * RUN
        end = tl.minimum(_first_pixel(cell + 1, step, rest, denominator, reach, least), start + RUN)
        position = start * step + rest
    t = (position - cell * denominator).to(tl.float32) * inverse
    return cell.to(tl.int32), start.to(tl.int32), t, tl.minimum(end, size).to(tl.int32)


@triton.jit
def border_index(cell, first, size):
    """Where the corner before ``cell`` lies in a plane with a border; the one behind it comes next."""
    return (tl.minimum(tl.maximum(cell + first, -BORDER), size) + BORDER).to(tl.int32)


@triton.jit
def runs_at(
    i, n, step, rest, denominator, parts, first, runs, CLAMP: tl.constexpr, SPARSE: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """The runs ``[begin, end)`` that may sample input pixel ``i`` of ``n``."""
    if WIDE:
        i = tl.cast(i, tl.int64)
    before = i - 1 - first
    if SPARSE:
        begin = tl.maximum(before * denominator - rest + step - 1, 0) // tl.maximum(step, 1)
        end = tl.maximum((before + 2) * denominator - rest + step - 1, 0) // tl.maximum(step, 1)
        begin = tl.where(step == 0, 0, begin)
        end = tl.where(step == 0, runs, end)
    else:
        begin = before * parts
        end = (before + 2) * parts
    if CLAMP:  # what lies beyond the border samples the pixel on it
        begin = tl.where(i == 0, 0, begin)
        end = tl.where(i == n - 1, runs, end)
    begin = tl.minimum(tl.maximum(begin, 0), runs)
    return begin.to(tl.int32), tl.minimum(tl.maximum(end, 0), runs).to(tl.int32)


@triton.jit
def corners_of(
    run, i, n, step, rest, denominator, parts, first, CLAMP: tl.constexpr, SPARSE: tl.constexpr, WIDE: tl.constexpr
):
    """Whether the corner before the cell of ``run`` is input pixel ``i``, and whether the one behind it is."""
    if WIDE:
        run = tl.cast(run, tl.int64)
    if SPARSE:
        cell = (run * step + rest) // denominator + first
    else:
        cell = run // parts + first
    before, behind = cell, cell + 1
    if CLAMP:
        before = tl.minimum(tl.maximum(before, 0), n - 1)
        behind = tl.minimum(tl.maximum(behind, 0), n - 1)
    return before == i, behind == i
