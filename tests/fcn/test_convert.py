"""Files of other programs become the networks they are of: compared with plain PyTorch layers on the same tensors."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from fcn.cli import main
from fcn.data import voc_palette
from fcn.data.nyud import NYUD_CLASSES, PUBLISHED
from fcn.data.preprocessing import CAFFE_VGG
from fcn.data.siftflow import PUBLISHED as SIFTFLOW_PUBLISHED
from fcn.data.siftflow import TASKS
from fcn.networks.models import ModelConfig, build_model
from fcn.weights import convert, load_pretrained_backbone, load_weights, save_weights, sources, start_from
from fcn.weights.caffemodel import read_caffemodel
from tests.fcn import networks
from tests.fcn.foreign import layers_of, write_caffemodel, write_npz
from tests.fcn.networks import State, published_state

pytestmark = pytest.mark.usefixtures("narrow_backbones")


def assert_same_network(
    path: Path, state: State, backbone: str, stride: int, scales: Any = (1.0, 1.0), **options: Any
) -> None:
    """Scores, loss and gradient of the image."""
    weights = convert(path, **options)
    assert (weights.model.config.backbone, weights.model.config.stride) == (backbone, stride)
    # In float64: in float32 rounding decides what a ReLU or a maximum lets through where values are nearly equal.
    images = torch.randn(1, 3, 45, 77, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (1, 45, 77))
    logits = networks.official(backbone, {name: t.double() for name, t in state.items()}, images, stride, scales)
    scores = weights.model.double().scores(images)
    torch.testing.assert_close(scores.logits(), logits)
    loss = F.cross_entropy(logits, target)
    torch.testing.assert_close(scores.loss(target), loss)
    (expected,) = torch.autograd.grad(loss, [images])
    (actual,) = torch.autograd.grad(scores.loss(target), [images])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-7 * float(expected.abs().max()))


# --- pytorch-fcn. ---


@pytest.mark.parametrize(
    ("name", "stride", "scales"),
    [("fcn32s", 32, (1, 1)), ("fcn16s", 16, (1, 1)), ("fcn8s", 8, (1, 1)), ("fcn8s-atonce", 8, (0.01, 0.0001))],
)
@pytest.mark.parametrize("layout", ["published", "checkpoint"])
def test_pytorch_fcn(tmp_path: Path, name: str, stride: int, scales: Any, layout: str) -> None:
    state = published_state("vgg16", stride)
    if layout == "published":
        path = tmp_path / f"my_{name}.pth"
        torch.save(state, path)
    else:
        path = tmp_path / "checkpoint.pth.tar"
        arch = {"fcn32s": "FCN32s", "fcn16s": "FCN16s", "fcn8s": "FCN8s", "fcn8s-atonce": "FCN8sAtOnce"}[name]
        checkpoint = {"epoch": 3, "iteration": 7, "arch": arch, "optim_state_dict": {"state": {}, "param_groups": []},
                      "model_state_dict": state, "best_mean_iu": np.float64(0.5)}  # fmt: skip
        torch.save(checkpoint, path)
    assert_same_network(path, state, "vgg16", stride, scales)
    config = convert(path).model.config
    assert (config.pad, config.classes, config.at_once) == ("official", 3, "atonce" in name)
    assert (config.upsampling, config.last_upsampling) == ("fixed", "fixed")
    assert convert(path).preprocessing == CAFFE_VGG


def test_checkpoints_written_before_numpy_2(tmp_path: Path) -> None:
    state = published_state("vgg16", 32)
    torch.save({"arch": "FCN32s", "model_state_dict": state, "best_mean_iu": np.float64(0.5)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            old.writestr(name, content.replace(b"numpy._core", b"numpy.core") if name.endswith("data.pkl") else content)
    assert (tmp_path / "old.pth").read_bytes().count(b"numpy.core.multiarray") == 1
    assert_same_network(tmp_path / "old.pth", state, "vgg16", 32)


def test_at_once_must_be_said_where_nothing_tells(tmp_path: Path) -> None:
    path, state = tmp_path / "weights.pth", published_state("vgg16", 8)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"weights\.pth: nothing in this file tells .* --no-at-once"):
        convert(path)
    assert_same_network(path, state, "vgg16", 8, at_once=False)
    assert_same_network(path, state, "vgg16", 8, (0.01, 0.0001), at_once=True)
    torch.save({"arch": "FCN8s", "model_state_dict": state}, path)
    with pytest.raises(ValueError, match="at_once is True, but this file is not of that kind"):
        convert(path, at_once=True)


def test_published_files_are_known_by_their_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "renamed.pth"
    torch.save(published_state("vgg16", 8), path)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(sources, "PUBLISHED", (sources.Published("fcn8s-atonce_from_caffe.pth", md5, at_once=True),))
    weights = convert(path)
    assert weights.model.config.at_once
    assert weights.extra["checksum"] == "that of the published fcn8s-atonce_from_caffe.pth"
    other = tmp_path / "fcn8s-atonce_from_caffe.pth"
    torch.save(published_state("vgg16", 8, seed=1), other)
    with pytest.raises(ValueError, match=f"that of the published file of this name {md5}"):
        convert(other)


def test_checksums_are_those_of_the_published_files() -> None:
    assert {known.name: known.md5[:4] for known in sources.PUBLISHED} == {
        "fcn32s_from_caffe.pth": "d3eb", "fcn16s_from_caffe.pth": "a2d4", "fcn8s_from_caffe.pth": "de93",
        "fcn8s-atonce_from_caffe.pth": "bfed", "vgg16_from_caffe.pth": "aa75",
        "efficientnet-lite0-57934424.pth": "7406", "efficientnet-lite1-77cc7160.pth": "e187",
        "efficientnet-lite2-9656183e.pth": "1ff5",
    }  # fmt: skip
    assert all(len(known.md5) == 32 for known in sources.PUBLISHED)


# --- Caffe and Chainer. ---


CAFFE: dict[str, dict[str, Any]] = {
    "layer": {}, "layer, unpacked": {"packed": False}, "layer, double": {"double": True}, "layers": {"v1": True},
    "layers, unpacked double": {"v1": True, "packed": False, "double": True},
}  # fmt: skip


@pytest.mark.parametrize("options", list(CAFFE.values()), ids=list(CAFFE))
def test_blobs_of_caffe(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.caffemodel"
    state = {
        "conv1.weight": torch.randn(2, 3, 5, 5),
        "conv1.bias": torch.randn(2),
        "up.weight": torch.randn(3, 3, 4, 4),
    }
    write_caffemodel(path, state, **options)
    blobs = read_caffemodel(path)
    assert list(blobs) == ["conv1", "up"]
    for name, arrays in layers_of(state).items():
        for found, array in zip(blobs[name], arrays, strict=True):
            assert found.size == array.size
            np.testing.assert_array_equal(found.reshape(array.shape), array)


def test_a_blob_without_axes_is_a_number(tmp_path: Path) -> None:
    """Caffe's scale of a batch normalization is such a one where it was written so."""
    number = b"\x3a\x00" + b"\x2a\x04" + np.float32(2.5).tobytes()  # shape without dim, data packed
    layer = b"\x0a\x01a" + b"\x3a" + bytes([len(number)]) + number
    (tmp_path / "a.caffemodel").write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    (blob,) = read_caffemodel(tmp_path / "a.caffemodel")["a"]
    assert blob.shape == ()
    assert blob == 2.5


@pytest.mark.parametrize(
    ("backbone", "stride"), [("vgg16", 32), ("vgg16", 16), ("vgg16", 8), ("alexnet", 32), ("vgg19", 8)]
)
def test_caffe_and_chainer_networks(tmp_path: Path, backbone: str, stride: int) -> None:
    state = published_state(backbone, stride)
    write_caffemodel(tmp_path / "a.caffemodel", state)
    write_caffemodel(tmp_path / "b.caffemodel", state, v1=True)
    write_npz(tmp_path / "c.npz", state)
    save_file(state, tmp_path / "d.safetensors")
    for name in ("a.caffemodel", "b.caffemodel", "c.npz", "d.safetensors"):
        needed = {"at_once": False} if stride == 8 and "caffemodel" not in name else {}
        assert_same_network(tmp_path / name, state, backbone, stride, **needed)


def test_scaled_skips_are_layers_in_caffe(tmp_path: Path) -> None:
    state = published_state("vgg16", 8)
    scales = {"scale_pool4.weight": torch.full((8,), 0.01), "scale_pool3.weight": torch.full((4,), 0.0001)}
    write_caffemodel(tmp_path / "a.caffemodel", {**state, **scales})
    assert_same_network(tmp_path / "a.caffemodel", state, "vgg16", 8, (0.01, 0.0001))
    write_caffemodel(tmp_path / "a.caffemodel", {**state, **scales, "scale_pool4.weight": torch.full((8,), 0.02)})
    with pytest.raises(ValueError, match=r"scale_pool4 is 0\.02, not 0\.01"):
        convert(tmp_path / "a.caffemodel")
    write_caffemodel(tmp_path / "a.caffemodel", {**state, "scale_pool4.weight": scales["scale_pool4.weight"]})
    with pytest.raises(ValueError, match=r"skips of strides \[16\] are scaled, the network has \[16, 8\]"):
        convert(tmp_path / "a.caffemodel")
    write_caffemodel(tmp_path / "a.caffemodel", state)
    with pytest.raises(ValueError, match="at_once is True, but this file is not"):
        convert(tmp_path / "a.caffemodel", at_once=True)


def test_color_and_depth_in_one_trunk_and_in_two(tmp_path: Path) -> None:
    """NYUDv2: ``conv1_1_bgrd``; layers twice, with the suffixes ``color`` and ``hha``, whose scores are averaged."""
    state = published_state("vgg16", 32)
    early = {name.replace("conv1_1.", "conv1_1_bgrd."): tensor for name, tensor in state.items()}
    early["conv1_1_bgrd.weight"] = torch.randn(2, 4, 3, 3)
    write_caffemodel(tmp_path / "early.caffemodel", early)
    with pytest.raises(ValueError, match="takes 4 channels; mean needs as many values, got none"):
        convert(tmp_path / "early.caffemodel")
    weights = convert(tmp_path / "early.caffemodel", mean=(104.0, 117.0, 123.0, 9.0))
    assert (weights.model.config.in_channels, weights.preprocessing.channels) == (4, 4)
    images = torch.randn(1, 4, 40, 52)
    oracle = {**state, "conv1_1.weight": early["conv1_1_bgrd.weight"]}
    torch.testing.assert_close(
        weights.model(images), networks.official("vgg16", oracle, images, 32), rtol=1e-3, atol=1e-3
    )

    streams = {"color": published_state("vgg16", 32, seed=1), "hha": published_state("vgg16", 32, seed=2)}
    late = {f"{layer}{suffix}.{part}": tensor for suffix, state in streams.items() for name, tensor in state.items()
            for layer, part in [name.split(".")] if layer != "upscore"}  # fmt: skip
    late["upscore.weight"] = state["upscore.weight"]
    write_caffemodel(tmp_path / "late.caffemodel", late)
    weights = convert(tmp_path / "late.caffemodel", mean=range(6))
    model = weights.model
    assert model.config.modalities == ("color", "hha")
    images = torch.randn(1, 6, 40, 52)
    parts = zip(streams.values(), images.split(3, 1), strict=True)
    expected = sum(networks.official("vgg16", state, part, 32) for state, part in parts) / 2
    torch.testing.assert_close(model(images), expected, rtol=1e-3, atol=1e-3)
    # It starts the training of the next network.
    save_weights(tmp_path / "late.safetensors", **vars(weights))
    finer = build_model(replace(model.config, stride=16))
    start_from(finer, str(tmp_path / "late.safetensors"), weights.preprocessing)
    assert all(torch.equal(finer.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "sees"),
    [("nyud-fcn32s-color-heavy", "color"), ("nyud-fcn32s-hha-heavy", "hha"), ("fcn32s", "color_depth"),
     ("nyud-fcn32s-color-hha-heavy", "color_hha")],
)  # fmt: skip
def test_networks_for_nyud_are_known_by_classes_channels_and_name(tmp_path: Path, name: str, sees: str) -> None:
    state = published_state("vgg16", 32, classes=40)
    if sees == "color_depth":
        state["conv1_1.weight"] = torch.randn(2, 4, 3, 3)
    elif sees == "color_hha":
        state = {f"{layer}{suffix}.{part}": tensor for key, tensor in state.items() if "upscore" not in key
                 for suffix in ("color", "hha") for layer, part in [key.split(".")]}  # fmt: skip
    write_caffemodel(tmp_path / f"{name}.caffemodel", state)
    weights = convert(tmp_path / f"{name}.caffemodel")
    assert (weights.classes, weights.preprocessing) == (NYUD_CLASSES, PUBLISHED[sees])


@pytest.mark.parametrize(("semantic", "geometric"), [(4, 2), (33, 3)])
def test_two_tasks(tmp_path: Path, semantic: int, geometric: int) -> None:
    """SIFT Flow: heads with the suffixes ``_sem`` and ``_geo`` on one trunk."""
    state, heads = {}, {"sem": published_state("vgg16", 16, semantic), "geo": published_state("vgg16", 16, geometric)}
    for task, tensors in heads.items():
        tensors.update({name: heads["sem"][name] for name in tensors if "score" not in name})
        for name, tensor in tensors.items():
            state[name.replace(".", f"_{task}.") if "score" in name else name] = tensor
    write_caffemodel(tmp_path / "a.caffemodel", state)
    weights = convert(tmp_path / "a.caffemodel")
    model = weights.model
    assert model.config.tasks == (("semantic", semantic), ("geometric", geometric))
    images = torch.randn(1, 3, 40, 52)
    for scores, head in zip(model.task_scores(images).values(), heads.values(), strict=True):
        expected = networks.official("vgg16", head, images, 16)
        torch.testing.assert_close(scores.logits(), expected, rtol=1e-3, atol=1e-3)
    classes = {name: task.classes for name, task in weights.tasks.items()}
    assert (classes == TASKS) == (weights.preprocessing.mean == SIFTFLOW_PUBLISHED.mean) == (semantic == 33)
    assert weights.tasks["geometric"].palette == voc_palette(geometric)


@pytest.mark.parametrize("between", ["fixed", "diagonal", "dense"])
@pytest.mark.parametrize("last", ["fixed", "diagonal", "dense"])
def test_transposed_convolutions_are_as_general_as_needed(tmp_path: Path, between: str, last: str) -> None:
    state = published_state("vgg16", 16)
    for name, kind in (("upscore2.weight", between), ("upscore16.weight", last)):
        if kind == "diagonal":
            state[name] = state[name] * torch.rand(3, 1, *state[name].shape[2:])
        elif kind == "dense":
            state[name] = state[name] + 0.1 * torch.randn_like(state[name])
    torch.save(state, tmp_path / "a.pth")
    assert_same_network(tmp_path / "a.pth", state, "vgg16", 16)
    config = convert(tmp_path / "a.pth").model.config
    assert (config.upsampling, config.last_upsampling) == (between, last)


# --- The command. ---


def test_convert_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = published_state("vgg16", 8, classes=4)
    source, target = tmp_path / "siftflow-fcn8s.caffemodel", tmp_path / "new/fcn8s.safetensors"
    write_caffemodel(source, state)
    (tmp_path / "classes.txt").write_text("sky\ntree\n\nroad\nsea\n")
    mean = ["--mean", "114.578", "115.294", "108.353"]
    assert main(["convert", str(source), str(target), "--classes", str(tmp_path / "classes.txt"), *mean]) == 0
    assert "FCN-8s, vgg16, pad official" in capsys.readouterr().out
    weights = load_weights(target)
    assert weights.classes == ["sky", "tree", "road", "sea"]
    assert weights.preprocessing.mean == (114.578, 115.294, 108.353)
    assert weights.preprocessing.channel_order == "bgr"
    assert weights.extra == {"converted_from": "siftflow-fcn8s.caffemodel"}
    assert main(["convert", str(source), str(tmp_path / "hha.safetensors"), "--order", "rgb", *mean]) == 0
    assert load_weights(tmp_path / "hha.safetensors").preprocessing == replace(
        weights.preprocessing, channel_order="rgb"
    )
    images = torch.randn(1, 3, 40, 52)
    expected = networks.official("vgg16", state, images, 8)
    torch.testing.assert_close(weights.model(images), expected, rtol=1e-3, atol=1e-3)
    # What was converted can start the training of another network.
    model = build_model(ModelConfig("vgg16", 32, 2))
    load_pretrained_backbone(model, target)
    assert torch.equal(model.backbone.get_parameter("fc6.weight"), state["fc6.weight"])

    for arguments, message in (
        ((str(source), str(tmp_path / "x.pth")), "must end in .safetensors"),
        ((str(target), str(tmp_path / "x.safetensors")), "a weight file of this program already"),
        ((str(tmp_path / "none.pth"), str(target)), "none.pth: no such file"),
        ((str(source), str(target), "--at-once"), "this file is not of that kind"),
        ((str(source), str(target), "--mean", "1"), "takes 3 channels; mean needs as many values, got 1"),
    ):
        assert main(["convert", *arguments]) == 2
        assert message in capsys.readouterr().err
    # Nothing was lost.
    assert load_weights(target).classes[0] == "sky"
