"""Exported graphs give the labels of ``Predictor`` at every size, and their files say what they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fcn
from fcn.cli import main
from fcn.data import read_labels
from fcn.data.preprocessing import CAFFE_VGG, IMAGENET, Preprocessing
from fcn.errors import ConfigError
from fcn.export import program as programs
from fcn.export.description import Description
from fcn.export.labeler import Labeler, labeler
from fcn.export.program import write_program
from fcn.weights import Weights, save_weights
from tests.fcn.networks import random_model

CLASSES = ["ground", "square", "disk"]
PALETTE = [(0, 0, 0), (200, 30, 30), (30, 60, 220)]
SIZES = (1, 1), (2, 3), (1, 40), (33, 47), (64, 20), (64, 64), (97, 131), (31, 32), (128, 96), (127, 129), (150, 7)


def weights_of(preprocessing: Preprocessing = IMAGENET, **options: Any) -> Weights:
    model = random_model("small", seed=2, **options).eval()
    return Weights(model, CLASSES, PALETTE, preprocessing, {"epoch": "3"})


def images(count: int, height: int, width: int) -> np.ndarray:
    """uint8 ``[count, height, width, 3]``: blocks of colors, and noise."""
    random = np.random.default_rng(height * 1000 + width)
    blocks = random.integers(0, 256, (count, height // 8 + 1, width // 8 + 1, 3))
    large = blocks.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    return (large + random.integers(-20, 20, large.shape)).clip(0, 255).astype(np.uint8)


def check(run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], weights: Weights) -> None:
    """Labels and confidences of batches of one and of several images, of every size."""
    predictor = fcn.Predictor(weights, "cpu", precision="float32")
    seen: set[int] = set()
    for height, width in SIZES:
        for count in (1, 3):
            batch = images(count, height, width)
            labels, confidence = run(batch)
            assert labels.shape == confidence.shape == (count, height, width)
            assert (labels.dtype, confidence.dtype) == (np.uint8, np.float32)
            expected = np.stack(predictor(list(batch)))
            assert (labels == expected).mean() >= 0.9999, (height, width)
            with torch.inference_mode():
                scores = weights.model.scores(torch.stack([weights.preprocessing(image) for image in batch]))
                _, probability = scores.labels(confidence=True)
            rounding = 1e-5 * float(scores.coarse.abs().max())  # of sums in another order
            np.testing.assert_allclose(confidence, probability.numpy(), rtol=0, atol=rounding)
            seen.update(np.unique(expected))
    assert seen == {0, 1, 2}


# --- ONNX: one file, used by several tests, since an export takes seconds. ---


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    """Published geometry and preprocessing, by the command."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("export")
    weights = weights_of(CAFFE_VGG, stride=16, pad="official")
    save_weights(
        folder / "w.safetensors", weights.model, classes=CLASSES, palette=PALETTE, preprocessing=CAFFE_VGG,
        extra=weights.extra,
    )  # fmt: skip
    given = ["--to", "onnx", "--out", str(folder / "net.onnx"), "--confidence", "--license", "CC BY 4.0"]
    assert main(["export", str(folder / "w.safetensors"), *given]) == 0
    return folder / "net.onnx", weights


def test_onnx_runtime_gives_the_labels_of_the_predictor(exported: tuple[Path, Weights]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    path, weights = exported
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    check(lambda batch: session.run(["labels", "confidence"], {"images": batch}), weights)


def test_an_onnx_file_holds_standard_operators_and_says_what_it_is(exported: tuple[Path, Weights]) -> None:
    onnx = pytest.importorskip("onnx")
    path, weights = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    described = [
        (value.name, value.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in dims])
        for value in (*model.graph.input, *model.graph.output)
        for dims in [value.type.tensor_type.shape.dim]
    ]
    axes, kinds = ["batch", "height", "width"], onnx.TensorProto
    assert described == [
        ("images", kinds.UINT8, [*axes, 3]), ("labels", kinds.UINT8, axes), ("confidence", kinds.FLOAT, axes),
    ]  # fmt: skip
    description = Description.read({entry.key: entry.value for entry in model.metadata_props})
    assert description == Description.of(weights, "CC BY 4.0")
    assert description.meaning.classes == CLASSES
    assert description.notes == {"epoch": "3"}
    assert str(Path(fcn.__file__).parent).encode() not in path.read_bytes()  # nor where it was made


def test_predict_runs_an_exported_graph(
    exported: tuple[Path, Weights], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    path, weights = exported
    (color,), gray = images(1, 50, 61), images(1, 40, 40)[0, :, :, 0]
    Image.fromarray(color).save(tmp_path / "color.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "gray16.png")
    pictures = [str(tmp_path / name) for name in ("color.png", "gray16.png")]
    assert main(["predict", str(path), *pictures, "--out", str(tmp_path / "out"), "--batch", "2"]) == 0
    assert "2 images labeled in float32 by ONNX Runtime" in capsys.readouterr().out
    predictor = fcn.Predictor(weights, "cpu", precision="float32")
    for name in ("color", "gray16"):
        found = read_labels(tmp_path / f"out/{name}.png", 3)
        assert (found == predictor(tmp_path / f"{name}.png")).mean() >= 0.9999
        assert Image.open(tmp_path / f"out/{name}_overlay.png").size[0] >= found.shape[1]
    for option in (["--tile", "64"], ["--compile"], ["--precision", "bfloat16"]):
        assert main(["predict", str(path), *pictures, "--out", str(tmp_path / "out"), *option]) == 2
        assert f"{' '.join(option[:1])}" in capsys.readouterr().err


def test_files_that_are_no_exported_graph_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result])
    other = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(other, tmp_path / "other.onnx")
    onnx.helper.set_model_props(other, {"format": "fcn-export-1", "classes": "[1"})
    onnx.save(other, tmp_path / "damaged.onnx")
    (tmp_path / "text.onnx").write_text("no graph")
    Image.fromarray(images(1, 9, 9)[0]).save(tmp_path / "a.png")
    for name, what in (
        ("other", "not written by 'fcn export'"),
        ("damaged", "damaged properties"),
        ("text", "ONNX Runtime cannot read it"),
        ("absent", "no such file"),
    ):
        file = tmp_path / f"{name}.onnx"
        assert main(["predict", str(file), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"fcn predict: {file}: {what}"), line


# --- torch.export. ---


def test_a_program_gives_the_labels_of_the_predictor(tmp_path: Path) -> None:
    """A learned filter onto the image, and borders that clamp."""
    weights = weights_of(stride=32, last_upsampling="diagonal")
    write_program(tmp_path / "net.pt2", weights, confidence=True, license="CC BY 4.0")
    told = {"fcn.json": ""}
    run = torch.export.load(tmp_path / "net.pt2", extra_files=told).module()
    check(lambda batch: tuple(each.numpy() for each in run(torch.from_numpy(batch))), weights)
    assert Description.read(json.loads(told["fcn.json"])) == Description.of(weights, "CC BY 4.0")


def test_gray_networks_take_the_same_images() -> None:
    gray = weights_of(Preprocessing((0.4,), (0.2,), "gray"), in_channels=1)
    (image,) = batch = images(1, 40, 50)
    labels = labeler(gray)(torch.from_numpy(batch))[0].numpy()
    assert (labels == fcn.Predictor(gray, "cpu", precision="float32")(image)).mean() >= 0.9999


def test_a_graph_that_is_not_right_at_every_size_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks of others may ask for sizes where a graph cannot; this one asks when it is run."""

    class Different(Labeler):
        def forward(self, images: torch.Tensor) -> Any:
            labels = super().forward(images)
            return labels if images.shape[1] > 60 else 2 - labels

    class Taller(Labeler):
        def forward(self, images: torch.Tensor) -> Any:
            labels = super().forward(images)
            return labels if images.shape[1] < 50 else labels[:, :50] + torch.zeros(50, 1, dtype=torch.uint8)

    weights = weights_of(stride=32)
    for kind in (Different, Taller):
        monkeypatch.setattr(programs, "labeler", lambda *_, kind=kind: kind(weights.model, IMAGENET).eval())
        with pytest.raises(ConfigError, match="small: the graph of this network is not right"):
            write_program(tmp_path / "net.pt2", weights)
    assert not list(tmp_path.iterdir())


# --- What cannot be exported, and what is not there. ---


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"tasks": (("semantic", 2), ("geometric", 3)), "classes": 5}, "this network has tasks semantic, geometric"),
        ({"in_channels": 4}, "this network sees 4 channels, and a graph for RGB images"),
    ],
)
def test_networks_of_other_inputs_and_outputs_are_refused(options: dict[str, Any], what: str) -> None:
    model = random_model("small", **options)
    count = model.config.classes
    channels = model.config.in_channels
    preprocessing = Preprocessing((0.5,) * channels, (0.5,) * channels)
    with pytest.raises(ConfigError, match=what):
        labeler(Weights(model, ["c"] * count, [(0, 0, 0)] * count, preprocessing, {}))


def test_errors_of_the_command_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "w.safetensors"
    weights = weights_of(stride=32)
    save_weights(file, weights.model, classes=CLASSES, palette=PALETTE, preprocessing=IMAGENET)
    (tmp_path / "w.onnx").write_text("a file of the user's")
    (tmp_path / "net.pt2").mkdir()
    for given, what in (
        (["--to", "onnx"], f"{tmp_path / 'w.onnx'}: a file is there; --out {tmp_path / 'w.onnx'} replaces it"),
        (["--to", "onnx", "--out", "net.pt2"], "net.pt2: the file to write must end in .onnx"),
        (["--to", "torch", "--out", str(tmp_path / "net.pt2")], f"{tmp_path / 'net.pt2'}: a folder is there"),
    ):
        assert main(["export", str(file), *given]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"fcn export: {what}")
    assert (tmp_path / "w.onnx").read_text() == "a file of the user's"
    with pytest.raises(SystemExit):
        main(["export", str(file), "--to", "tflite"])
    assert "argument --to: invalid choice: 'tflite'" in capsys.readouterr().err

    for command, package in (
        (["export", str(file), "--to", "onnx", "--out", str(tmp_path / "n.onnx")], "onnxscript"),
        (["predict", str(tmp_path / "w.onnx"), str(tmp_path), "--out", str(tmp_path / "out")], "onnxruntime"),
    ):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
        assert main(command) == 2
        needs = f"this needs {package}, which is not installed: pip install -e '.[onnx]'\n"
        assert capsys.readouterr().err == f"fcn {command[0]}: {needs}"
