"""Files that cannot be converted: what is wrong with each is named."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn.weights import convert
from fcn.weights.caffemodel import read_caffemodel
from tests.fcn.foreign import net_parameter, write_caffemodel
from tests.fcn.networks import State, published_state

pytestmark = pytest.mark.usefixtures("narrow_backbones")


def test_every_mismatch_is_named(tmp_path: Path) -> None:
    state = published_state("vgg16", 16)
    del state["conv3_2.bias"], state["fc7.weight"]
    state["conv9.weight"] = torch.zeros(1)
    state["conv2_1.weight"] = torch.zeros(2, 9, 3, 3)
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: the tensors do not fit") as error:
        convert(tmp_path / "a.pth")
    for part in ("missing: backbone.conv3_2.bias, backbone.fc7.weight;", "unexpected: conv9.weight;",
                 "backbone.conv2_1.weight is (2, 9, 3, 3) instead of (2, 2, 3, 3)"):  # fmt: skip
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upscore2.weight": torch.zeros(3, 3, 5, 5)}, r"upscore2.weight is \(3, 3, 5, 5\) instead of \(classes, clas"),
        ({"fc6.bias": torch.full((64,), torch.nan)}, "values that are not finite in backbone.fc6.bias"),
        ({"conv1_1.running_mean": torch.zeros(2)}, "it has batch normalization, and the published vgg16 has none"),
    ],
)
def test_what_cannot_be_converted(tmp_path: Path, change: State, message: str) -> None:
    torch.save({**published_state("vgg16", 16), **change}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a.pth")


def test_foreign_names(tmp_path: Path) -> None:
    torch.save({"layer1.0.conv1.weight": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet\.pth: its tensors \(layer1.0.conv1.weight, .*none of alexnet, vgg16"):
        convert(tmp_path / "resnet.pth")


@pytest.fixture(scope="module")
def small_caffemodel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caffe") / "a.caffemodel"
    write_caffemodel(path, {"conv1.weight": torch.randn(2, 3, 1, 1), "conv1.bias": torch.randn(2)})
    return path


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_caffemodels_are_errors(small_caffemodel: Path, data: st.DataObject) -> None:
    """Whatever the bytes: arrays or a ValueError."""
    content = bytearray(small_caffemodel.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = small_caffemodel.with_name("damaged.caffemodel")
    damaged.write_bytes(content)
    with contextlib.suppress(ValueError):
        blobs = read_caffemodel(damaged)
        assert all(isinstance(blob, np.ndarray) for arrays in blobs.values() for blob in arrays)


def test_truncated_caffemodels_and_others(small_caffemodel: Path, tmp_path: Path) -> None:
    whole = small_caffemodel.read_bytes()
    path = tmp_path / "a.caffemodel"
    for size in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"not a whole \.caffemodel: it ends within a field"):
            read_caffemodel(path)
    net = net_parameter(True)
    net.layer.add(name="data")
    path.write_bytes(net.SerializeToString())
    with pytest.raises(ValueError, match="no layer in it has any"):
        read_caffemodel(path)
    path.write_bytes(b"\x12\x02\x0a\x00")  # layers { layer {} }
    with pytest.raises(ValueError, match="first version of Caffe"):
        read_caffemodel(path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 broken"])
def test_broken_npz_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: (not a whole \.npz file|an empty file)"):
        convert(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"b\.npz: not a whole \.npz file of numbers"):
        convert(tmp_path / "b.npz")
