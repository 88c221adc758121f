"""Masks as lengths of runs: COCO's, CVAT's, Label Studio's. Lengths are checked before memory is taken for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def coco_mask(counts: Any, height: int, width: int) -> np.ndarray:
    """bool ``[height, width]`` from COCO's counts, a list or a compressed string, column by column.

    Raises ``ValueError``.
    """
    lengths = _compressed(counts) if isinstance(counts, str) else _numbers(counts)
    return _expanded(lengths, height * width).reshape(width, height).T


def cvat_mask(counts: Sequence[int], height: int, width: int) -> np.ndarray:
    """bool ``[height, width]`` from CVAT's counts, row by row. Raises ``ValueError``."""
    return _expanded(_numbers(counts), height * width).reshape(height, width)


def _numbers(counts: Any) -> np.ndarray:
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count < 1 << 40 for count in counts):
        raise ValueError("lengths of runs must be whole numbers of 0 or more")
    return np.array(counts, np.int64)


def _compressed(text: str) -> np.ndarray:
    """Numbers of 5 bits a character, the lowest first; from the third on, differences to the last but one."""
    lengths: list[int] = []
    value = shift = 0
    for char in text:
        code = ord(char) - 48
        if not 0 <= code < 64 or shift > 40:
            raise ValueError("a compressed mask holds a character or a number that has no meaning")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("a compressed mask ends within a number")
    return np.array(lengths, np.int64)


def _expanded(lengths: np.ndarray, pixels: int) -> np.ndarray:
    """Runs of False and True in turn, ``pixels`` in all."""
    if (lengths < 0).any() or lengths.sum() != pixels:
        raise ValueError(f"the runs of a mask are {lengths.sum()} pixels long, and the mask has {pixels}")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def brush_mask(data: Any, height: int, width: int) -> np.ndarray:
    """bool ``[height, width]`` from the bytes of Label Studio's brush: the alpha channel of red, green, blue, alpha.

    The packing is that of ``@thi.ng/rle-pack``: the number of words (32 bits), bits of a word less 1 (5), four sizes of
    lengths less 1 (4 each); then blocks of 1 bit (whether one word is repeated), 2 bits (which size), the length
    less 1, and the word or the words. Raises ``ValueError``.
    """
    if not isinstance(data, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in data):
        raise ValueError("a brush's mask must be bytes, 0 to 255")
    stream = _Bits(np.unpackbits(np.array(data, np.uint8)))
    total, bits = stream.read(32), stream.read(5) + 1
    sizes = [stream.read(4) + 1 for _ in range(4)]
    if total != 4 * height * width:
        raise ValueError(
            f"a brush's mask holds {total} values; an image of {width}x{height} wants {4 * height * width}"
        )
    words = np.zeros(total, np.uint32)
    done = 0
    while done < total:
        repeated = stream.read(1)
        end = done + 1 + stream.read(sizes[stream.read(2)])
        if end > total:
            raise ValueError("a run of a brush's mask is longer than the mask")
        words[done:end] = stream.read(bits) if repeated else stream.words(end - done, bits)
        done = end
    # Brushes are opaque, but for the soft edges that browsers draw.
    return words[3::4].reshape(height, width) >= 1 << max(0, bits - 1)


class _Bits:
    """Numbers from bits in a row, the highest first."""

    def __init__(self, bits: np.ndarray) -> None:
        self._bits, self._at = bits, 0

    def read(self, size: int) -> int:
        return int(self.words(1, size)[0])

    def words(self, count: int, size: int) -> np.ndarray:
        end = self._at + count * size
        if end > len(self._bits):
            raise ValueError("a brush's mask ends too early")
        found = self._bits[self._at : end].reshape(count, size)
        self._at = end
        powers = 1 << np.arange(size - 1, -1, -1, dtype=np.int64)
        result: np.ndarray = found @ powers
        return result
