from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcn.data import ArrayDataset, Sample, voc_palette
from fcn.data.preprocessing import IMAGENET
from fcn.errors import DataError
from fcn.evaluation.overlays import blend, colorize, save_overlay
from fcn.evaluation.pictures import save_curves, save_panels
from fcn.evaluation.tables import metrics_as_dict
from fcn.inference import machine
from fcn.inference import predictor as inference
from fcn.inference.predictor import Predictor, inference_trunk
from fcn.inference.tiling import Tile
from fcn.networks.backbones import BACKBONES
from fcn.networks.models import FCN, ModelConfig, build_model
from fcn.weights import Weights

CLASSES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(1)
    model = build_model(ModelConfig("small", stride=8, classes=4)).eval()
    for name, parameter in model.named_parameters():
        if "score" in name:
            torch.nn.init.normal_(parameter)
    return Predictor(Weights(model, CLASSES, voc_palette(4), IMAGENET, {}), device="cpu", precision="float32")


def random_model(pad: str = "official", backbone: str = "small", modalities: tuple[str, ...] = ()) -> FCN:
    torch.manual_seed(1)
    model = build_model(ModelConfig(backbone, stride=8, classes=4, pad=pad, modalities=modalities)).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 20)])
def test_labels_have_the_size_of_the_image_and_are_the_argmax(predictor: Predictor, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    labels = predictor(image)
    assert labels.shape == size
    assert labels.dtype == np.uint8
    with torch.no_grad():
        logits = predictor.model(IMAGENET(image)[None])[0]
    chosen = logits.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    torch.testing.assert_close(chosen, logits.amax(0))  # equal scores but for rounding


def test_every_form_of_one_image_gives_one_answer(predictor: Predictor, tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    Image.fromarray(gray).save(tmp_path / "g.png")
    rgb = gray[:, :, None].repeat(3, 2)
    forms = [
        gray, gray[:, :, None], rgb, np.dstack([rgb, gray]), gray.astype(np.uint16) * 257,
        Image.fromarray(gray), Image.fromarray(rgb).convert("RGBA"), Image.fromarray(gray.astype(np.uint16) * 257),
        tmp_path / "g.png", str(tmp_path / "g.png"),
    ]  # fmt: skip
    answers = [predictor(form) for form in forms]
    assert len(np.unique(answers[0])) > 1
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


@pytest.mark.parametrize("array", [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4)), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused(predictor: Predictor, array: np.ndarray) -> None:
    with pytest.raises(DataError, match="an image must be"):
        predictor(array)


def test_evaluate_counts_every_labeled_pixel(predictor: Predictor) -> None:
    random = np.random.default_rng(0)
    samples: list[Sample] = []
    confusion = np.zeros((4, 4), int)
    for size in ((20, 30), (31, 17)):
        image = random.integers(0, 256, (*size, 3)).astype(np.uint8)
        target = random.choice([0, 1, 2, 255], size).astype(np.uint8)
        samples.append({"image": image, "target": target, "name": ""})
        np.add.at(confusion, (target[target != 255], predictor(image)[target != 255]), 1)
    metrics = predictor.evaluate(ArrayDataset(samples, CLASSES, voc_palette(4)), progress=False)
    assert metrics.confusion.tolist() == confusion.tolist()
    assert metrics_as_dict(metrics, CLASSES)["class_iu"]["d"] is None  # absent from the truth
    with pytest.raises(DataError, match="the data have classes x, y"):
        predictor.evaluate(ArrayDataset(samples, ["x", "y"], voc_palette(2)), progress=False)


# --- Precision and speed. ---


def weights_of(model: FCN) -> Weights:
    return Weights(model, CLASSES, voc_palette(4), IMAGENET, {})


@pytest.fixture
def image() -> np.ndarray:
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 5) * 255, (61, 75), mode="bicubic")
    return smooth[0].permute(1, 2, 0).clamp(0, 255).byte().numpy()


@pytest.fixture
def fast_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "bfloat16_instructions", lambda: "avx512_bf16")


@pytest.mark.parametrize("pad", ["official", "same"])
@pytest.mark.usefixtures("fast_bfloat16")
def test_auto_is_bfloat16_where_labels_agree(pad: str, image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Predictor(weights_of(random_model(pad)), "cpu", precision="float32")(image)
    model = random_model(pad)
    predictor = Predictor(weights_of(model), "cpu")
    for _ in range(3):  # settled; prepared; reused
        assert 0.99 <= (predictor(image) == exact).mean() <= 1
        assert re.fullmatch(r"bfloat16 \(labels of the first image: (99|100)\.\d\d% as in float32\)", predictor.note)
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # the network itself keeps its weights
    monkeypatch.setattr(inference, "AGREEMENT", 1.01)
    predictor = Predictor(weights_of(model), "cpu")
    with pytest.warns(UserWarning, match="computes in float32, not bfloat16"):
        np.testing.assert_array_equal(predictor(image), exact)
    np.testing.assert_array_equal(predictor(image), exact)


@pytest.mark.usefixtures("fast_bfloat16")
def test_a_precision_by_name(image: np.ndarray) -> None:
    labels = {p: Predictor(weights_of(random_model()), "cpu", precision=p)(image) for p in ("float32", "bfloat16")}
    assert 0.97 < (labels["float32"] == labels["bfloat16"]).mean() < 1
    with pytest.raises(ValueError, match=r"precision must be one of .* got 'half'"):
        Predictor(weights_of(random_model()), precision="half")  # type: ignore[arg-type]


def test_auto_is_float32_where_the_cpu_has_no_bfloat16(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "bfloat16_instructions", lambda: None)
    predictor, exact = (Predictor(weights_of(random_model()), "cpu", precision=p) for p in ("auto", "float32"))
    np.testing.assert_array_equal(predictor(image), exact(image))
    assert predictor.note == "float32"


@pytest.mark.parametrize(
    ("flags", "name"),
    [("fpu avx512f avx512_bf16", "avx512_bf16"), ("avx512_bf16 amx_bf16 amx_tile", "amx_bf16"), ("avx512f avx2", None)],
)
def test_instructions_for_bfloat16(flags: str, name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_cpuinfo", {"flags": flags}.get)
    assert machine.bfloat16_instructions() == name


@pytest.mark.parametrize(
    ("backbone", "modalities"), [("small", ()), ("alexnet", ()), ("googlenet", ()), ("alexnet", ("color", "hha"))]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"reuse_padding": False}, {"compile": True}], ids=str)
def test_trunks_give_the_scores_of_the_model(
    options: dict[str, bool],
    dtype: torch.dtype,
    backbone: str,
    modalities: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AlexNet and GoogLeNet with a sixteenth of their channels."""
    for name in ("alexnet", "googlenet"):
        layers = tuple(replace(layer, channels=layer.channels // 16) for layer in BACKBONES[name].layers)
        monkeypatch.setitem(BACKBONES, name, replace(BACKBONES[name], layers=layers))
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(inference, "frozen", lambda net: compiled.append(net) or net)
    model = random_model(backbone=backbone, modalities=modalities)
    images = torch.randn(2, model.backbone.in_channels, 40, 33)
    with torch.inference_mode():
        expected = model.scores(images).coarse
        trunk = inference_trunk(model, dtype, **options)
        for _ in range(3):
            coarse = model.scores(images, trunk).coarse
            assert coarse.dtype == torch.float32
            error = float((coarse - expected).norm() / expected.norm())
            # One convolution of these kernels is exact to 3e-6 (tests/kernels/test_winograd.py).
            assert error < (0.02 if dtype == torch.bfloat16 else 3e-6)
    assert len(compiled) == (len(model.trunks) if options.get("compile") else 0)
    if backbone != "googlenet":  # whose official padding is the classifier's
        assert all(isinstance(net, torch.fx.GraphModule) for net in compiled)  # what is left of it with padding reused


def test_colorize_and_blend() -> None:
    labels = np.array([[0, 1, 255]], np.uint8)
    palette = [(0, 0, 0), (100, 200, 50)]
    assert colorize(labels, palette).tolist() == [[[0, 0, 0], [100, 200, 50], [255, 255, 255]]]
    gray = np.full((1, 3), 80, np.uint8)
    assert blend(gray, labels, palette, opacity=0.5).tolist() == [[[80, 80, 80], [90, 140, 65], [80, 80, 80]]]


def test_pictures_are_written_whole(tmp_path: Path) -> None:
    image = np.full((30, 40, 3), 90, np.uint8)
    labels = np.zeros((30, 40), np.uint8)
    labels[:10] = 2
    palette = voc_palette(4)
    save_overlay(tmp_path / "overlay.png", image, labels, CLASSES, palette)
    save_panels(tmp_path / "panels.png", [[image, labels]] * 2, ["image", "truth"], CLASSES, palette, ["one", "two"])
    rows = [{"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "mean_iu": 1 - 0.5 / e} for e in range(1, 5)]
    save_curves(tmp_path / "curves.png", {"FCN-32s": rows, "FCN-8s": rows})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "overlay.png", "panels.png"]
    for path in tmp_path.iterdir():
        picture = np.asarray(Image.open(path).convert("RGB"))
        assert picture.shape[1] > 300
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5


def test_lists_give_what_single_images_give(predictor: Predictor) -> None:
    generator = np.random.default_rng(0)
    sizes = [(40, 50)] * 11 + [(33, 20)] + [(40, 50)]
    images = [generator.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
    together = predictor(images)
    assert isinstance(together, list)
    assert [labels.shape for labels in together] == sizes
    assert all(np.array_equal(labels, predictor(image)) for labels, image in zip(together, images, strict=True))
    assert predictor([]) == []


def test_tiles_give_what_the_whole_image_gives(predictor: Predictor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 230, 3)).astype(np.uint8)
    tiled = Predictor(
        Weights(predictor.model, CLASSES, voc_palette(4), IMAGENET, {}), device="cpu", precision="float32", tile=64
    )
    assert (tiled(image) == predictor(image)).mean() > 0.9999  # float32 rounds otherwise in another size
    with pytest.raises(ValueError, match="tile must be at least 1 pixel, got 0"):
        Predictor(Weights(predictor.model, CLASSES, voc_palette(4), IMAGENET, {}), tile=0)


def test_confidence_is_the_probability_of_the_label(predictor: Predictor) -> None:
    sizes = [(33, 47), (33, 47), (70, 90)]
    images = [
        np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8) for seed, size in enumerate(sizes)
    ]
    found = predictor.with_confidence(images)
    assert len(found) == 3
    for image, (labels, confidence) in zip(images, found, strict=True):
        np.testing.assert_array_equal(labels, predictor(image))
        assert (confidence.dtype, confidence.shape) == (np.float32, labels.shape)
        with torch.no_grad():
            probability = predictor.model(IMAGENET(image)[None])[0].softmax(0).amax(0)
        torch.testing.assert_close(torch.from_numpy(confidence), probability, atol=1e-4, rtol=0)
    tiled = Predictor(Weights(predictor.model, CLASSES, voc_palette(4), IMAGENET, {}), device="cpu", tile=64)
    seen: list[int] = []

    def progress(tiles: list[Tile]) -> Iterator[Tile]:
        for tile in tiles:
            yield tile
            seen.append(1)

    (labels, confidence) = tiled.with_confidence(images[2:], progress)[0]
    assert len(seen) == 4
    assert (labels == found[2][0]).mean() > 0.9999
    np.testing.assert_allclose(confidence, found[2][1], atol=1e-4)
