"""Triton kernels of upsample_cross_entropy: lanes are patches of pixels, classes are looped, nothing is kept per pixel.

``pack`` takes scores relative to the largest class of their coarse pixel. ``patches`` makes losses, and for each
class and cell the gradient's sums at the four corners. ``finish`` adds the sums that meet in a coarse pixel, and the
losses of programs, both in a fixed order. Scores and their exponentials are to base 2 throughout.

Tuples hold one tensor for each pixel of a patch, row by row: they are registers.
"""

from __future__ import annotations

from .finish import finish
from .pack import pack
from .patches import patches

__all__ = ["finish", "pack", "patches"]
