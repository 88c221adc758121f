"""Weight files as other programs write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

# Caffe's messages: name -> (field, number, type, repeated).
MESSAGES = {
    "BlobShape": [("dim", 1, "int64", True)],
    "BlobProto": [
        ("num", 1, "int32", False), ("channels", 2, "int32", False), ("height", 3, "int32", False),
        ("width", 4, "int32", False), ("data", 5, "float", True), ("shape", 7, "BlobShape", False),
        ("double_data", 8, "double", True),
    ],
    "LayerParameter": [
        ("name", 1, "string", False), ("type", 2, "string", False), ("bottom", 3, "string", True),
        ("blobs", 7, "BlobProto", True), ("phase", 10, "int32", False),
    ],
    "V1LayerParameter": [
        ("bottom", 2, "string", True), ("name", 4, "string", False), ("type", 5, "int32", False),
        ("blobs", 6, "BlobProto", True), ("blobs_lr", 7, "float", True),
    ],
    "NetParameter": [
        ("name", 1, "string", False), ("layers", 2, "V1LayerParameter", True), ("input", 3, "string", True),
        ("layer", 100, "LayerParameter", True),
    ],
}  # fmt: skip


def net_parameter(packed: bool) -> Any:
    """An empty ``caffe.NetParameter``; the test that wants it is skipped where protobuf is not installed."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name=f"caffe{packed}.proto", package="caffe", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            added = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind in MESSAGES:
                added.type, added.type_name = added.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                added.type = getattr(added, f"TYPE_{kind.upper()}")
                if repeated and kind != "string":
                    added.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))()


def layers_of(state: Mapping[str, Tensor]) -> dict[str, list[np.ndarray]]:
    """``{"conv1_1": [weight, bias]}``."""
    layers: dict[str, list[np.ndarray]] = {}
    for name, tensor in state.items():
        layers.setdefault(name.rpartition(".")[0], []).append(tensor.detach().numpy())
    return layers


def write_caffemodel(
    path: Path, state: Mapping[str, Tensor], *, v1: bool = False, packed: bool = True, double: bool = False
) -> None:
    """Weights by published names, as ``layer`` messages or as ``layers`` (V1) with shapes of four dimensions."""
    net = net_parameter(packed)
    net.name, net.input[:] = "FCN", ["data"]
    layers = net.layers if v1 else net.layer
    layers.add(name="data")
    for name, blobs in layers_of(state).items():
        layer = layers.add(name=name, bottom=["x"])
        if v1:
            layer.type, layer.blobs_lr[:] = 4, [1.0, 2.0]
        else:
            layer.type, layer.phase = "Convolution", 1
        for array in blobs:
            blob = layer.blobs.add()
            (blob.double_data if double else blob.data).extend(array.ravel().tolist())
            if v1:
                blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - array.ndim) + array.shape
            else:
                blob.shape.dim.extend(array.shape)
        layers.add(name=f"relu_{name}")
    path.write_bytes(net.SerializeToString())


def write_npz(path: Path, state: Mapping[str, Tensor]) -> None:
    """As Chainer's ``save_npz``."""
    parts = {"weight": "W", "bias": "b"}
    keys = {name: name.rpartition(".") for name in state}
    np.savez(path, **{f"{layer}/{parts[part]}": state[name].numpy() for name, (layer, _, part) in keys.items()})
