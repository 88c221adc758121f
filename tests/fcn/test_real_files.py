"""Files as people bring them: nothing is overwritten, dropped or guessed in silence."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from fcn.cli import main
from fcn.data import folder, read_labels
from fcn.data.preprocessing import IMAGENET, Preprocessing
from fcn.demo import MARK, _clear
from fcn.errors import ConfigError, DataError
from fcn.evaluation.pictures import save_confusion
from fcn.inference.predictor import Predictor
from fcn.networks.models import ModelConfig, build_model
from fcn.weights import convert, load_weights, save_weights

COLORS = [(0, 0, 0), (200, 30, 30), (30, 60, 220)]
NAMES = ["[/x] roof", "天空", "a name " * 20]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    model = build_model(ModelConfig("small", stride=16, classes=3))
    torch.nn.init.normal_(model.head.score_fr.weight)
    save_weights(path, model, classes=NAMES, palette=COLORS, preprocessing=IMAGENET)
    return path


def picture(path: Path, height: int = 20, width: int = 30, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def predict(weights: Path, out: Path, *words: str | Path) -> int:
    return main(["predict", str(weights), *map(str, words), "--out", str(out)])


# --- Nothing of the user's is overwritten. ---


def test_results_never_replace_what_is_read(weights: Path, tmp_path: Path, capsys: Any) -> None:
    image = picture(tmp_path / "a.png")
    before = image.read_bytes()
    for words in ([image], [tmp_path], [tmp_path / "*.png"]):
        assert predict(weights, tmp_path, *words) == 2
        assert str(image) in capsys.readouterr().err
    assert image.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_a_file_of_the_users_in_the_place_of_a_result(weights: Path, tmp_path: Path, capsys: Any) -> None:
    picture(tmp_path / "in/a.jpg")
    own = picture(tmp_path / "out/a.png", seed=1)
    before = own.read_bytes()
    assert predict(weights, tmp_path / "out", tmp_path / "in") == 2
    assert str(own) in capsys.readouterr().err
    assert own.read_bytes() == before
    own.unlink()
    assert predict(weights, tmp_path / "out", tmp_path / "in") == 0
    assert predict(weights, tmp_path / "out", tmp_path / "in") == 0  # an earlier result is replaced


def test_subfolders_are_kept(weights: Path, tmp_path: Path) -> None:
    for name in ("x", "y"):
        picture(tmp_path / f"in/{name}/0001.png")
    for words, below in (([tmp_path / "in"], "one"), ([tmp_path / "in/**/*.png"], "two")):
        assert predict(weights, tmp_path / below, *words) == 0
        found = {str(path.relative_to(tmp_path / below)) for path in (tmp_path / below).rglob("*.png")}
        assert found == {f"{name}/0001{kind}.png" for name in ("x", "y") for kind in ("", "_overlay")}


def test_convert_and_evaluate_do_not_write_over_their_inputs(weights: Path, shapes: Path, capsys: Any) -> None:
    before = weights.read_bytes()
    data = ["--data.kind=folder", f"--data.root={shapes}"]
    assert main(["evaluate", str(weights), *data, "--out", str(weights)]) == 2
    assert main(["convert", str(weights), str(weights)]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert weights.read_bytes() == before


def test_the_demo_clears_only_what_it_wrote(tmp_path: Path) -> None:
    stage = tmp_path / "fcn32s"
    (stage / "kept").mkdir(parents=True)
    for name in ("recipe.yaml", "overlay.png", "notes.txt", "fcn32s/last.ckpt", "fcn32s/events.out.tfevents.1"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ConfigError, match="holds files that no demo wrote"):
        _clear(tmp_path, [stage])
    assert (tmp_path / "overlay.png").exists()
    (tmp_path / MARK).write_text("")
    _clear(tmp_path, [stage, tmp_path / "fcn8s"])
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {MARK, "notes.txt", "fcn32s", "fcn32s/kept"}


# --- Nothing is dropped in silence. ---


def test_every_image_of_a_folder_is_labeled_or_named(weights: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("a.png", "b.gif", "c.ppm", "d.webp", "e.JPG", "f.bmp", "g.tif", "._a.png", ".hidden.png"):
        saved = picture(tmp_path / "in" / name.lstrip("."))
        saved.rename(tmp_path / "in" / name)
    picture(tmp_path / "in/__MACOSX/a.png")
    (tmp_path / "in/h.heic").write_bytes(b"no picture")
    (tmp_path / "in/notes.txt").write_text("of no concern")
    picture(tmp_path / "in/a.png")
    assert predict(weights, tmp_path / "out", tmp_path / "in", "--no-overlay") == 1
    printed = capsys.readouterr()
    assert "h.heic" in printed.err
    assert "notes" not in printed.err
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == list("abcdefg")


def test_two_images_of_one_stem(weights: Path, tmp_path: Path, capsys: Any) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/a.jpg")
    assert predict(weights, tmp_path / "out", tmp_path / "in") == 2
    error = capsys.readouterr().err
    assert "a.png" in error
    assert "a.jpg" in error
    assert not (tmp_path / "out").exists()


def test_every_page_of_a_stack_is_labeled(weights: Path, tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((20, 30), 40 * page, np.uint8)) for page in range(5)]
    (tmp_path / "in").mkdir()
    pages[0].save(tmp_path / "in/stack.tif", save_all=True, append_images=pages[1:])
    assert predict(weights, tmp_path / "out", tmp_path / "in/stack.tif", "--no-overlay") == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 5


def test_images_are_turned_as_viewers_show_them(weights: Path, tmp_path: Path) -> None:
    upright = picture(tmp_path / "in/a.png", 20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    Image.open(upright).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in/b.png", exif=exif)
    assert predict(weights, tmp_path / "out", tmp_path / "in", "--no-overlay") == 0
    one, other = (read_labels(tmp_path / f"out/{name}.png", 3) for name in "ab")
    assert one.shape == (20, 30)
    np.testing.assert_array_equal(one, other)


def test_16_bits_keep_their_contrast() -> None:
    image = np.random.default_rng(0).integers(1000, 1100, (20, 30)).astype(np.uint16)
    fitted = Preprocessing.fit([image])
    assert fitted.levels is not None
    values = fitted(image)
    assert len(values.unique()) > 90
    assert abs(float(values.mean())) < 0.1


# --- Masks as tools make them. ---


def dataset(root: Path, count: int = 6) -> np.ndarray:
    """Images, and masks of 0 and 1; returns the last mask."""
    random = np.random.default_rng(0)
    for index in range(count):
        mask = np.zeros((24, 32), np.uint8)
        mask[4 + index : 16 + index, 6:20] = 1
        (root / "masks").mkdir(parents=True, exist_ok=True)
        picture(root / f"images/s{index}.png", 24, 32, seed=int(random.integers(99)))
        Image.fromarray(mask).save(root / f"masks/s{index}.png")
    return mask


def resaved(
    root: Path, suffix: str, change: Callable[[Image.Image], Image.Image], name: str = "{}", **options: Any
) -> None:
    for path in sorted((root / "masks").iterdir()):
        image = change(Image.open(path))
        path.unlink()
        image.save(path.with_name(name.format(path.stem) + suffix), **options)


def check(root: Path, capsys: Any) -> tuple[int, str]:
    code = main(["data", "check", str(root), "--data.kind=folder"])
    return code, " ".join(capsys.readouterr().out.split())


def test_black_and_white_masks_are_not_fine(tmp_path: Path, capsys: Any) -> None:
    dataset(tmp_path)
    resaved(tmp_path, ".png", lambda image: image.point([0, *[255] * 255]))
    code, printed = check(tmp_path, capsys)
    assert code == 1
    assert "255" in printed
    assert "No problems found" not in printed


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_indices_as_stored(tmp_path: Path, bits: int) -> None:
    expected = dataset(tmp_path)
    palette = [0, 0, 0, 255, 255, 255, 9, 9, 9, 99, 99, 99]

    def few(image: Image.Image) -> Image.Image:
        indexed = Image.fromarray(np.asarray(image), "P")
        indexed.putpalette(palette)
        return indexed

    resaved(tmp_path, ".png", few, bits=bits)
    np.testing.assert_array_equal(folder(tmp_path, "train")[0]["target"].max(), 1)
    every = [sample["target"] for split in ("train", "val", "test") for sample in folder(tmp_path, split)]
    assert any(np.array_equal(target, expected) for target in every)


@pytest.mark.parametrize(
    ("suffix", "name", "change"),
    [
        (".gif", "{}", lambda image: image),
        (".png", "{}_mask", lambda image: image),
        (".png", "label-{}", lambda image: image),
        (".png", "{}", lambda image: Image.merge("RGB", [image] * 3)),
    ],
)
def test_masks_by_other_names_and_formats(tmp_path: Path, suffix: str, name: str, change: Any) -> None:
    dataset(tmp_path)
    expected = {len(folder(tmp_path, split)) for split in ("train", "val", "test")}
    resaved(tmp_path, suffix, change, name)
    assert {len(folder(tmp_path, split)) for split in ("train", "val", "test")} == expected
    assert set(np.unique(folder(tmp_path, "train")[0]["target"])) == {0, 1}


def test_colors_with_a_table(tmp_path: Path) -> None:
    dataset(tmp_path)
    resaved(
        tmp_path,
        ".png",
        lambda image: Image.fromarray(np.array([(0, 0, 0), (250, 50, 83)], np.uint8)[np.asarray(image)]),
    )
    with pytest.raises(DataError, match=r"labelmap\.txt|class_dict\.csv"):
        folder(tmp_path, "train")[0]
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nfruit:250,50,83::\n")
    data = folder(tmp_path, "train")
    assert data.classes == ["background", "fruit"]
    assert set(np.unique(data[0]["target"])) == {0, 1}


@pytest.mark.parametrize(
    "line", ["{}", "{}.png", "images/{}.png", "images/{}.png masks/{}.png", "images/{}.png,masks/{}.png"]
)
def test_lists(tmp_path: Path, line: str) -> None:
    dataset(tmp_path)
    for split, stems in (("train", ("s0", "s2")), ("val", ("s1",)), ("test", ("s3",))):
        text = "".join(line.replace("{}", stem) + "\r\n" for stem in stems)
        (tmp_path / f"{split}.txt").write_text(text, encoding="utf-8-sig")
    assert [sample["name"] for sample in folder(tmp_path, "train")] == ["s0", "s2"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda image: image.point([255] * 256), "void"),
        (lambda image: image.point([0] * 256), "one class"),
        (lambda image: image.point([0, 200, *[0] * 254]), "no pixel|without a pixel|have no"),
    ],
)
def test_what_would_teach_nothing_is_found(tmp_path: Path, change: Any, found: str, capsys: Any) -> None:
    dataset(tmp_path)
    resaved(tmp_path, ".png", change)
    code, printed = check(tmp_path, capsys)
    assert code == 1
    assert re.search(found, printed)


# --- Size. ---


@pytest.mark.parametrize(("height", "width"), [(700, 4), (1, 300), (300, 1)])
def test_an_overlay_has_about_the_size_of_its_image(weights: Path, tmp_path: Path, height: int, width: int) -> None:
    picture(tmp_path / "a.png", height, width)
    assert predict(weights, tmp_path / "out", tmp_path / "a.png") == 0
    overlay = Image.open(tmp_path / "out/a_overlay.png")
    assert overlay.width * overlay.height < 700 * 2000


def test_images_past_the_limit_are_read_where_that_is_allowed(weights: Path, tmp_path: Path, capsys: Any) -> None:
    picture(tmp_path / "a.png", 200, 300)
    assert predict(weights, tmp_path / "out", tmp_path / "a.png", "--max-megapixels", "0.05") == 1
    assert re.search(r"a\.png: .*--max-megapixels", capsys.readouterr().err)
    assert predict(weights, tmp_path / "out", tmp_path / "a.png", "--max-megapixels", "1", "--no-overlay") == 0


def test_an_image_that_does_not_fit_is_named_and_the_rest_finishes(
    weights: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("a", 20), ("big", 90), ("c", 20)):
        picture(tmp_path / f"in/{name}.png", size, size)
    original = Predictor.__call__

    def little_memory(self: Predictor, images: Any) -> Any:
        if any(image.shape[0] == 90 for image in images):
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return original(self, images)

    monkeypatch.setattr(Predictor, "__call__", little_memory)
    assert predict(weights, tmp_path / "out", tmp_path / "in", "--no-overlay") == 1
    error = capsys.readouterr().err
    assert re.search(r"big\.png: .*--tile", error)
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"a", "c"}


# --- Weights that are none. ---


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".caffemodel", ".npz"])
@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"<!DOCTYPE html><html>quota exceeded", "a web page"),
        (b"\n <HTML>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b'name: "VGG"\nlayer {', "a Caffe prototxt"),
        (b"", "an empty file"),
    ],
)
def test_files_that_hold_no_weights_are_named(
    weights: Path, tmp_path: Path, start: bytes, what: str, suffix: str, capsys: Any
) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(start)
    assert main(["convert", str(path), str(tmp_path / "o.safetensors")]) == 2
    error = capsys.readouterr().err
    assert f"{path}: " in error
    assert what in error


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/never",)


@pytest.mark.parametrize("content", [{"a": Evil()}, torch.nn.Linear(2, 2), [1, 2], {"w": torch.eye(3).to_sparse()}])
def test_no_message_advises_to_load_unsafely(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: not a") as found:
        convert(tmp_path / "w.pth")
    assert "weights_only" not in str(found.value)
    assert "\x1b" not in str(found.value)
    assert len(str(found.value)) < 400


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_used(weights: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    with safe_open(weights, framework="pt") as file:
        tensors = {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    save_file(tensors, tmp_path / "w.safetensors", metadata)
    picture(tmp_path / "a.png")
    assert predict(tmp_path / "w.safetensors", tmp_path / "out", tmp_path / "a.png", "--no-overlay") == 0
    assert {parameter.dtype for parameter in load_weights(tmp_path / "w.safetensors").model.parameters()} == {
        torch.float32
    }


def test_whole_numbers_are_no_weights(weights: Path, tmp_path: Path) -> None:
    with safe_open(weights, framework="pt") as file:
        tensors = {name: file.get_tensor(name).to(torch.int32) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    save_file(tensors, tmp_path / "w.safetensors", metadata)
    with pytest.raises(ValueError, match=r"w\.safetensors: .*is of torch.int32 instead of torch.float32"):
        load_weights(tmp_path / "w.safetensors")


# --- Names and pictures. ---


def test_names_are_text(weights: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["info", str(weights)]) == 0
    printed = "".join(capsys.readouterr().out.split())
    for name in NAMES:
        assert "".join(name.split()) in printed
    picture(tmp_path / "a.png", 60, 80)
    assert predict(weights, tmp_path / "out", tmp_path / "a.png") == 0
    assert json.loads(safe_open(weights, framework="pt").metadata()["fcn"])["classes"] == NAMES


@pytest.mark.parametrize("count", [2, 150])
def test_nothing_of_the_confusion_is_cut_off(tmp_path: Path, count: int) -> None:
    """White all around."""
    names = [f"quite a long name of a class, number {index}" for index in range(count)]
    save_confusion(tmp_path / "c.png", torch.eye(count), names)
    pixels = np.asarray(Image.open(tmp_path / "c.png").convert("L"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert edge.min() == 255
