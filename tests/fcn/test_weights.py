from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fcn.data.preprocessing import CAFFE_VGG, Preprocessing
from fcn.networks.backbones import BACKBONES
from fcn.networks.backbones.vgg import vgg
from fcn.networks.models import FCN, ModelConfig, build_model
from fcn.weights import files as weights_module
from fcn.weights import load_pretrained_backbone, load_weights, save_weights

CLASSES = ["ground", "tree", "sky"]
PALETTE = [(0, 0, 0), (0, 128, 0), (10, 20, 255)]
WIDTHS = (2, 3, 4, 5, 6)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "vgg16", vgg(WIDTHS, (2, 2, 3, 3, 3), 8))


def random_model(**options: Any) -> FCN:
    torch.manual_seed(0)
    model = build_model(ModelConfig(**{"backbone": "vgg16", "stride": 16, "classes": 3, **options}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def save(path: Path, model: FCN | None = None, **options: Any) -> None:
    arguments = {"classes": CLASSES, "palette": PALETTE, "preprocessing": CAFFE_VGG, **options}
    save_weights(path, model or random_model(), **arguments)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save(path)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pad": "official", "stride": 32},
        {"backbone": "small", "stride": 8},
        {"backbone": "small_batchnorm", "stride": 8},
    ],
)
def test_round_trip(tmp_path: Path, options: dict[str, Any]) -> None:
    model = random_model(**options, dropout=0.25).eval()
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    path = tmp_path / "new" / "folder" / "model.safetensors"
    save(path, model, extra={"recipe": "a: 1"})
    loaded = load_weights(path)
    assert loaded.model.config == model.config
    assert (loaded.classes, loaded.palette, loaded.extra) == (CLASSES, PALETTE, {"recipe": "a: 1"})
    assert loaded.preprocessing == CAFFE_VGG
    assert not loaded.model.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in loaded.model.parameters())
    torch.testing.assert_close(loaded.model.state_dict(), model.state_dict(), rtol=0, atol=0)
    images = torch.randn(1, 3, 40, 33)
    torch.testing.assert_close(loaded.model(images), model(images), rtol=1e-4, atol=1e-4)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_equal_networks_give_equal_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.safetensors" for index in range(8)]
    for path in paths:
        save(path, random_model(backbone="small_batchnorm"), extra={"b": "1", "a": "2"})
    assert len({path.read_bytes() for path in paths}) == 1


def test_failed_save_keeps_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(weights_module, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"]}, "3 classes, but 2 names and 3 colors"),
        ({"palette": [(0, 0, 256)] * 3}, "from 0 to 255"),
        ({"preprocessing": Preprocessing((0.0,), (1.0,), "gray")}, "takes 3 channels and its preprocessing gives 1"),
    ],
)
def test_what_does_not_fit_is_not_saved(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "model.safetensors", **options)
    assert not list(tmp_path.iterdir())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors: no such file"):
        load_weights(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth: no such file"):
        load_pretrained_backbone(random_model(), tmp_path / "nothing.pth")


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 0.3, 0.99, -1])
def test_truncated_file(saved: Path, keep: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=r"model\.safetensors: (not a whole safetensors file|an empty file)"):
        load_weights(saved)


def test_foreign_files(saved: Path) -> None:
    saved.write_text("a text file, long enough to have a header length that makes no sense")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_weights(saved)
    torch.save({"a": torch.zeros(3)}, saved)
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_weights(saved)
    save_file({"a": torch.zeros(3)}, saved)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a weight file of this program"):
        load_weights(saved)


def rewrite(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    save_file(tensors, path, metadata={weights_module.METADATA_KEY: json.dumps(header)})


def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    metadata, tensors = weights_module.read_safetensors(path)
    return tensors, json.loads(metadata[weights_module.METADATA_KEY])


def test_every_tensor_that_does_not_fit_is_named(saved: Path) -> None:
    tensors, header = contents(saved)
    del tensors["head.score_fr.bias"], tensors["backbone.fc7.weight"]
    tensors["head.score_pool9.weight"] = torch.zeros(1)
    tensors["head.score_pool4.weight"] = torch.zeros(3, 9, 1, 1)
    rewrite(saved, tensors, header)
    with pytest.raises(ValueError, match=r"model\.safetensors: the tensors do not fit") as error:
        load_weights(saved)
    for part in (
        "missing: backbone.fc7.weight, head.score_fr.bias;",
        "unexpected: head.score_pool9.weight;",
        "head.score_pool4.weight is (3, 9, 1, 1) instead of (3, 5, 1, 1)",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"backbone": "resnet"}},
        {"model": {"depth": 3}},
        {"model": 7},
        {"classes": ["a"]},
        {"palette": [[0, 0]] * 3},
        {"preprocessing": {}},
        {"preprocessing": None},
        {"preprocessing": {"mean": [0], "std": [0], "channel_order": "gray", "scale": 1}},
        {"extra": []},
        {"format": "fcn-weights-0"},
    ],
)
def test_damaged_header(saved: Path, change: dict[str, Any]) -> None:
    tensors, header = contents(saved)
    rewrite(saved, tensors, {**header, **change})
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged header"):
        load_weights(saved)


# --- torchvision's classifiers. ---


def torchvision_vgg16() -> dict[str, Tensor]:
    """The keys and shapes of torchvision's vgg16, with few channels."""
    torch.manual_seed(1)
    convs = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = [WIDTHS[block] for block in (0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4)]
    state, channels = {}, 3
    for index, width in zip(convs, widths, strict=True):
        state[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3)
        state[f"features.{index}.bias"] = torch.randn(width)
        channels = width
    for index, (out, inputs) in {0: (8, 6 * 49), 3: (8, 8), 6: (1000, 8)}.items():
        state[f"classifier.{index}.weight"] = torch.randn(out, inputs)
        state[f"classifier.{index}.bias"] = torch.randn(out)
    return state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_weights_make_a_classifier_on_every_window(tmp_path: Path, suffix: str) -> None:
    state = torchvision_vgg16()
    path = tmp_path / f"vgg16{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    model = random_model(pad="official").eval()
    score = model.head.score_fr.weight.clone()
    load_pretrained_backbone(model, path)
    assert torch.equal(model.head.score_fr.weight, score)
    # fc7 of a 7x7 map of pool5 equals the fully connected layers on it, flattened.
    pool5 = torch.randn(1, 6, 7, 7)
    fc6 = (state["classifier.0.weight"] @ pool5.flatten() + state["classifier.0.bias"]).relu()
    fc7 = state["classifier.3.weight"] @ fc6 + state["classifier.3.bias"]
    backbone: Any = model.backbone
    actual = backbone.fc7(backbone.fc6(pool5).relu()).flatten()
    torch.testing.assert_close(actual, fc7, rtol=1e-4, atol=1e-3)
    assert torch.equal(backbone.conv1_2.weight, state["features.2.weight"])
    assert torch.equal(backbone.conv4_1.bias, state["features.17.bias"])
    assert torch.equal(backbone.conv5_3.weight, state["features.28.weight"])


def test_torchvision_mismatches_are_named(tmp_path: Path) -> None:
    path = tmp_path / "vgg16.pth"
    state = torchvision_vgg16()
    del state["features.10.bias"]
    state["features.0.weight"] = torch.zeros(2, 4, 3, 3)
    torch.save(state, path)
    model = random_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"vgg16\.pth: .*missing: conv3_1\.bias; conv1_1\.weight is \(2, 4, 3, 3\)"):
        load_pretrained_backbone(model, path)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_features_only_weights_with_nan_classifiers(tmp_path: Path) -> None:
    path = tmp_path / "features.pth"
    state = torchvision_vgg16()
    state["classifier.0.weight"].fill_(torch.nan)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"features\.pth: values that are not finite in fc6\.weight"):
        load_pretrained_backbone(random_model(), path)


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_foreign_pth_files_are_refused_and_never_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "bad.pth", tmp_path / "executed"
    torch.save({"features.0.weight": _Payload(marker)}, path)
    whole = path.read_bytes()
    samples = [whole, pickle.dumps(_Payload(marker), protocol=2), b"", b"text", bytes(range(256)) * 9]
    torch.save(torchvision_vgg16(), path)
    whole = path.read_bytes()
    samples += [whole[: len(whole) * part // 10] for part in range(1, 10)]
    for sample in samples:
        path.write_bytes(sample)
        with pytest.raises(ValueError, match=r"bad\.pth: (not a PyTorch file|an empty file)"):
            load_pretrained_backbone(random_model(), path)
    assert not marker.exists()
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match=r"bad\.pth: not a state dict"):
        load_pretrained_backbone(random_model(), path)


def test_file_is_plain_safetensors(saved: Path) -> None:
    """Other programs can read the tensors."""
    assert set(load_file(saved)) == set(random_model().state_dict())
