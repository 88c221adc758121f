"""Caffe's binary networks (``.caffemodel``) without Caffe: the few protocol-buffer messages that hold weights.

Only numbers are read, nothing is executed. Messages and field numbers are those of ``caffe.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
Array = NDArray[np.float32]


def read_caffemodel(path: Path) -> dict[str, list[Array]]:
    """The blobs of each layer that has any, by its name: weight, then bias.

    Reads ``layer`` messages and the older ``layers`` (V1). Raises ``ValueError`` for what is not a whole NetParameter.
    """
    try:
        layers = [
            _layer(number, value) for number, _, value in _fields(memoryview(path.read_bytes())) if number in LAYERS
        ]
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a whole .caffemodel: {error}") from error
    blobs = {name: arrays for name, arrays in layers if arrays}
    if not blobs:
        raise ValueError(f"{path}: not a .caffemodel with weights: no layer in it has any")
    return blobs


# NetParameter: number of the repeated layer message -> its fields (name, blobs).
LAYERS = {100: (1, 7), 2: (4, 6)}


def _layer(message: int, data: memoryview | int) -> tuple[str, list[Array]]:
    name_field, blobs_field = LAYERS[message]
    name, blobs = "", []
    for number, wire, value in _fields(_bytes(data)):
        if message == 2 and number == 1:
            raise ValueError("written by the first version of Caffe (V0 layers); upgrade_net_proto_binary converts it")
        if number == name_field:
            name = bytes(_bytes(value)).decode()
        elif number == blobs_field and wire == BYTES:
            blobs.append(_blob(_bytes(value), name or "a layer"))
    return name, blobs


def _blob(data: memoryview, layer: str) -> Array:
    """BlobProto: shape (7; of no axes: a single number) or num, channels, height, width (1 to 4); data (5) in float or
    double_data (8)."""
    shape: list[int] | None = None
    legacy = dict.fromkeys((1, 2, 3, 4), 0)
    # Packed, all numbers are in one field; else each is a field of its own.
    numbers = {5: bytearray(), 8: bytearray()}
    for number, wire, value in _fields(data):
        if number == 7:
            shape = shape or []
            for field, kind, dims in _fields(_bytes(value)):
                if field == 1:
                    shape += _varints(_bytes(dims)) if kind == BYTES else [_integer(dims)]
        elif number in legacy and wire == VARINT:
            legacy[number] = _integer(value)
        elif number in numbers:
            numbers[number] += _bytes(value)
    sizes = list(legacy.values()) if shape is None else shape
    values: Array = np.frombuffer(numbers[5], "<f4")
    if numbers[8]:
        values = np.frombuffer(numbers[8], "<f8").astype(np.float32)
    if values.size != np.prod(sizes, dtype=np.int64) or min(sizes, default=0) < 0:
        raise ValueError(f"{layer}: a blob of shape {tuple(sizes)} with {values.size} numbers")
    return values.reshape(sizes)


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    """(number, wire type, value) of each field of a message; the value of a varint is a number, else its bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, position = _varint(data, position)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, position = _varint(data, position)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"a field of unknown type {wire} at byte {position}")
        if position + size > len(data):
            raise ValueError(f"it ends within a field of {size} bytes")
        yield number, wire, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("it ends within a number")
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7


def _varints(data: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        values.append(value)
    return values


def _bytes(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _integer(value: memoryview | int) -> int:
    if not isinstance(value, int):
        raise ValueError("a message where a number is expected")
    return value
