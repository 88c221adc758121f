"""Every published data set in its own format: miniatures of random content are written and read back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from fcn.cli import main
from fcn.data import (
    KINDS,
    Augmentation,
    FileDataset,
    collate,
    pascal_context,
    pascal_context59,
    recognize,
    sbd,
    siftflow_tasks,
    voc,
)
from fcn.data.augment import to_tensor
from fcn.data.further import LOG_DEPTH_MEAN
from fcn.data.listing import LISTS, split_names
from fcn.data.siftflow import SCENES
from fcn.errors import DataError, MissingSplitError
from fcn.networks.models import ModelConfig, build_model
from fcn.weights import load_weights

HEIGHT, WIDTH = 6, 9
RANDOM = np.random.default_rng(7)
VOID = 255


def pixels(path: Path, channels: int = 3) -> np.ndarray:
    """A random image, written; what a reader must find (JPEG is not exact, so it is read back)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (HEIGHT, WIDTH, channels)).astype(np.uint8)).save(path)
    return np.asarray(Image.open(path))


def png(path: Path, stored: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored.astype(np.uint8)).save(path)


def mat(path: Path, **variables: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


def lines(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n")


def draw(values: list[int]) -> np.ndarray:
    """Random values, each of them at least once."""
    some = RANDOM.choice(values, HEIGHT * WIDTH)
    some[: len(values)] = values[: HEIGHT * WIDTH]
    return RANDOM.permutation(some).reshape(HEIGHT, WIDTH)


def shifted(stored: np.ndarray, void: int) -> np.ndarray:
    """Classes stored from 1 on."""
    return np.where(stored == void, VOID, stored - 1)


@dataclass
class Written:
    image: np.ndarray
    target: np.ndarray


def write_voc(root: Path) -> Written:
    stored = draw([*range(21), 255])
    image = pixels(root / "JPEGImages/2007_1.jpg")
    png(root / "SegmentationClass/2007_1.png", stored)
    lines(root / "ImageSets/Segmentation/train.txt", "2007_1")
    return Written(image, stored)


def write_sbd(root: Path) -> Written:
    base, stored = root / "benchmark_RELEASE/dataset", draw([*range(21)])
    image = pixels(base / "img/2008_2.jpg")
    mat(base / "cls/2008_2.mat", GTcls={"Boundaries": np.zeros((20, 1)), "Segmentation": stored.astype(np.uint8)})
    lines(base / "train.txt", "2008_2")
    return Written(image, stored)


def write_nyud(root: Path, further: str = "") -> Written:
    stored = draw([*range(41)])
    image = pixels(root / "data/images/img_5001.png")
    hha = pixels(root / "data/hha/img_5001.png")
    depth = RANDOM.integers(500, 9000, (HEIGHT, WIDTH)).astype(np.uint16)
    depth[0, 0] = 0
    (root / "data/depth").mkdir()
    Image.fromarray(depth).save(root / "data/depth/img_5001.png")
    mat(root / "segmentation/img_5001.mat", segmentation=stored.astype(np.uint8))
    lines(root / "train.txt", "5001")
    if further == "depth":
        logarithm = np.log(np.maximum(depth, 1).astype(np.float64))
        logarithm[0, 0] = LOG_DEPTH_MEAN  # no depth there
        image = np.concatenate((image, logarithm[:, :, None]), 2)
    if further == "hha":
        image = np.concatenate((image, hha), 2)
    return Written(hha if further == "hha alone" else image, shifted(stored, 0))


def write_siftflow(root: Path, labels: str = "semantic") -> Written:
    image = pixels(root / "Images" / SCENES / "coast_1.jpg")
    semantic, geometry = draw([*range(34)]), draw([-1, 1, 2, 3])
    mat(root / "SemanticLabels" / SCENES / "coast_1.mat", S=semantic.astype(np.float64))  # double, as MATLAB saves
    mat(root / "GeoLabels" / SCENES / "coast_1.mat", S=geometry.astype(np.int16))
    lines(root / "train.txt", "coast_1")
    targets = {"semantic": shifted(semantic, 0), "geometric": shifted(geometry, -1)}
    return Written(image, np.stack(list(targets.values())) if labels == "both" else targets[labels])


STORED = ["accordion", "aero plane", "cloth", "table", "clothes", "wall"]
"""Names of stored values 1 to 6."""


def write_context(root: Path, background: bool = True) -> Written:
    """Four of the 59 names, two of which are other names in labels.txt."""
    image = pixels(root / "VOC2010/JPEGImages/2008_7.jpg")
    stored = draw([*range(7)])
    mat(root / "pascal-context/trainval/2008_7.mat", LabelMap=stored.astype(np.uint16))
    lines(root / "VOC2010/ImageSets/Main/train.txt", "2008_7")
    lines(root / "pascal-context/labels.txt", *(f"{n}: {name}" for n, name in enumerate(STORED, 1)))
    lines(root / "pascal-context/59_labels.txt", "1: aeroplane", "2: diningtable", "3: clothes", "4: wall")
    target = np.array([0, 0, 1, 3, 2, 0, 4])[stored]  # the stored "clothes" is none of the 59
    return Written(image, target if background else np.where(target == 0, VOID, target - 1))


def write_camvid(root: Path) -> Written:
    stored = draw([*range(12)])
    image = pixels(root / "train/0001TP_1.png")
    png(root / "trainannot/0001TP_1.png", stored)
    return Written(image, np.where(stored == 11, VOID, stored))


def write_cityscapes(root: Path) -> Written:
    stored = draw([*range(34)])
    image = pixels(root / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png")
    png(root / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png", stored)
    png(root / "gtFine/train/ulm/ulm_000000_000019_gtFine_instanceIds.png", stored)
    scored = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    return Written(image, np.vectorize(lambda v: scored.index(v) if v in scored else VOID)(stored))


def write_ade20k(root: Path) -> Written:
    stored = draw([0, 1, 2, 77, 149, 150])
    image = pixels(root / "images/training/ADE_train_00000001.jpg")
    png(root / "annotations/training/ADE_train_00000001.png", stored)
    info = [f"{n}\t0.1\t10\t1\t1\tthing {n}, other name" for n in range(1, 151)]
    lines(root / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tStuff\tName", *info)
    return Written(image, shifted(stored, 0))


WRITERS: dict[str, tuple[Callable[[Path], Written], int, str]] = {
    "voc": (write_voc, 21, "person"),
    "sbd": (write_sbd, 21, "person"),
    "nyud": (write_nyud, 40, "night stand"),
    "nyud_hha": (lambda root: write_nyud(root, "hha alone"), 40, "wall"),
    "nyud_color_depth": (lambda root: write_nyud(root, "depth"), 40, "wall"),
    "nyud_color_hha": (lambda root: write_nyud(root, "hha"), 40, "wall"),
    "siftflow": (write_siftflow, 33, "desert"),
    "siftflow_geometric": (lambda root: write_siftflow(root, "geometric"), 3, "horizontal"),
    "siftflow_tasks": (lambda root: write_siftflow(root, "both"), 36, "horizontal"),
    "pascal_context": (write_context, 5, "diningtable"),
    "pascal_context59": (lambda root: write_context(root, background=False), 4, "diningtable"),
    "camvid": (write_camvid, 11, "Road"),
    "cityscapes": (write_cityscapes, 19, "rider"),
    "ade20k": (write_ade20k, 150, "thing 78"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_was_written_in_a_published_format_is_read(tmp_path: Path, kind: str) -> None:
    write, classes, name = WRITERS[kind]
    written = write(tmp_path)
    data = KINDS[kind].load(tmp_path, "train")
    sample = data[0]
    assert len(data) == 1
    assert len(data.classes) == len(data.palette) == classes
    assert name in data.classes
    assert sample["target"].dtype == np.uint8
    np.testing.assert_array_equal(sample["target"], written.target)
    np.testing.assert_allclose(sample["image"], written.image, rtol=1e-6)
    basic = re.sub("59|_hha|_color.*|_geometric|_tasks", "", kind)
    assert recognize(tmp_path) == {"siftflow": "siftflow_tasks"}.get(basic, basic)
    with pytest.raises(MissingSplitError):
        KINDS[kind].load(tmp_path, "gone")


def test_every_data_set_is_tested_here() -> None:
    assert set(KINDS) - {"folder"} == set(WRITERS)


@pytest.mark.parametrize("kind", ["voc", "nyud_color_depth", "nyud_color_hha", "siftflow"])
def test_published_preprocessing_is_that_of_the_authors(tmp_path: Path, kind: str) -> None:
    """Colors: blue, green, red less their means; further channels in the order of the file."""
    written = WRITERS[kind][0](tmp_path)
    data = KINDS[kind].load(tmp_path, "train")
    assert data.published is not None
    means = {
        "voc": (104.007, 116.669, 122.679),
        "nyud_color_depth": (116.190, 97.203, 92.318, 7.844),
        "nyud_color_hha": (116.190, 97.203, 92.318, 132.431, 94.076, 118.477),
        "siftflow": (114.578, 115.294, 108.353),
    }[kind]
    order = [2, 1, 0, 3, 4, 5][: len(means)]
    expected = written.image.astype(np.float64)[:, :, order] - np.array(means)
    np.testing.assert_allclose(data.published(data[0]["image"]), expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-3)


def test_depth_and_color_make_scores(tmp_path: Path) -> None:
    write_nyud(tmp_path)
    data = KINDS["nyud_color_depth"].load(tmp_path, "train")
    assert data.published is not None
    model = build_model(ModelConfig("small", stride=32, classes=40, in_channels=data.published.channels))
    loss = model.scores(data.published(data[0]["image"])[None]).loss(to_tensor(data[0]["target"])[None])
    torch.testing.assert_close(loss, torch.tensor(40.0).log())


def test_two_label_maps_make_the_losses_of_two_tasks(tmp_path: Path) -> None:
    write_siftflow(tmp_path)
    data = siftflow_tasks(tmp_path, "train")
    sample = data[0]
    assert sample["target"].shape == (2, HEIGHT, WIDTH)
    assert len(data.classes) == len(data.palette) == 36
    assert data.published is not None
    (group,) = collate([(data.published(sample["image"]), to_tensor(sample["target"]))] * 2)
    tasks = tuple((name, len(part.classes)) for name, part in data.tasks.items())
    scores = build_model(ModelConfig("small", stride=32, classes=36, tasks=tasks)).task_scores(group["image"])
    losses = [part.loss(group["target"][:, index]) for index, part in enumerate(scores.values())]
    torch.testing.assert_close(torch.stack(losses), torch.tensor([33.0, 3.0]).log())


def test_augmentation_of_many_channels_and_tasks_is_that_of_each() -> None:
    image = RANDOM.normal(0, 100, (20, 30, 4)).astype(np.float32)
    target = RANDOM.integers(0, 9, (2, 20, 30)).astype(np.uint8)
    view = Augmentation(mirror=True, scale=(0.5, 2.0), crop=(16, 24))
    many = view.resize_and_mirror(image, target, np.random.default_rng(3))
    cut = view.cut(torch.from_numpy(many[0].transpose(2, 0, 1)), to_tensor(many[1]), np.random.default_rng(4))
    assert cut[0].shape == (4, 16, 24)
    assert cut[1].shape == (2, 16, 24)
    for channel, task in ((0, 0), (3, 1)):
        one = view.resize_and_mirror(np.ascontiguousarray(image[:, :, channel]), target[task], np.random.default_rng(3))
        np.testing.assert_array_equal(many[0][:, :, channel], one[0])
        alone = view.cut(torch.from_numpy(one[0])[None], to_tensor(one[1]), np.random.default_rng(4))
        assert torch.equal(cut[0][channel], alone[0][0])
        assert torch.equal(cut[1][task], alone[1])


def test_lists_are_joined_and_taken_away(tmp_path: Path) -> None:
    lines(tmp_path / "train.txt", "c", "a", "2007_000033")
    lines(tmp_path / "val.txt", "a", "b", "2007_000042")
    lines(tmp_path / "hard-ones.txt", "z")
    assert split_names(tmp_path, "train+val") == ["c", "a", "2007_000033", "b", "2007_000042"]
    assert split_names(tmp_path, "train-val") == ["c", "2007_000033"]
    assert split_names(tmp_path, "train+val-seg11valid") == ["c", "a", "b"]
    assert split_names(tmp_path, "hard-ones") == ["z"]
    for wrong, message in (
        ("train-gone", r"gone\.txt: list not found"),
        ("train-train", "split 'train-train' is empt"),
    ):
        with pytest.raises(DataError, match=message):
            split_names(tmp_path, wrong)


def test_built_in_lists_are_the_published_ones() -> None:
    names = {path.stem: path.read_text().split() for path in LISTS.iterdir()}
    digest = hashlib.sha256((LISTS / "seg11valid.txt").read_bytes()).hexdigest()
    assert digest == "4ca991bd72c251fd2485eaa9e29536502ea3800d1b1c17c151fd6a04bcfbc2cc"
    assert {name: len(ids) for name, ids in names.items()} == {"seg11valid": 736, "voc2012val": 1449}
    assert set(names["seg11valid"]) < set(names["voc2012val"])


def test_official_lists_fit(real_data: Path) -> None:
    """Lists as published: joined, no name twice; what SBD adds to VOC's train is free of the lists to validate on."""
    lists = real_data / "lists"
    if not lists.is_dir():
        pytest.skip(f"{lists} is missing")
    assert len(split_names(lists, "nyud_train+nyud_val")) == 795
    assert len(split_names(lists, "nyud_test")) == 654
    assert len(split_names(lists, "sift-flow_trainval")) == 2486
    assert len(split_names(lists, "sift-flow_test")) == 200
    trainaug = split_names(lists, "voc2012_seg_trainaug")
    assert split_names(lists, "voc2012_seg_trainaug-voc2012val-seg11valid") == trainaug
    assert split_names(lists, "voc2012_seg_val") == (LISTS / "voc2012val.txt").read_text().split()


def test_official_names_of_pascal_context_fit(real_data: Path, tmp_path: Path) -> None:
    lists = real_data / "lists"
    if not lists.is_dir():
        pytest.skip(f"{lists} is missing")
    write_context(tmp_path)
    for name, file in (("labels", "400"), ("59_labels", "59")):
        text = (lists / f"pascal-context_classes-{file}.txt").read_text()
        (tmp_path / "pascal-context" / f"{name}.txt").write_text(text)
    data, without = pascal_context(tmp_path, "train"), pascal_context59(tmp_path, "train")
    assert (len(data.classes), len(without.classes)) == (60, 59)
    stored = np.arange(460)[None]
    labels, kept = data.codes(stored, "x"), without.codes(stored, "x")
    assert sorted(set(labels.ravel())) == list(range(60))
    assert data.classes[labels[0, 2]] == "aeroplane"
    np.testing.assert_array_equal(kept, np.where(labels == 0, VOID, labels - 1))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"other": 1}, "there is no GTcls.Segmentation"),
        ({"GTcls": {"Boundaries": 1}}, "there is no GTcls.Segmentation"),
        ({"GTcls": np.ones((2, 2))}, "there is no GTcls.Segmentation"),
        ({"GTcls": {"Segmentation": np.full((2, 2), 0.5)}}, "numbers that are not whole"),
        ({"GTcls": {"Segmentation": np.full((2, 2), np.nan)}}, "numbers that are not whole"),
        ({"GTcls": {"Segmentation": np.ones((2, 2, 2))}}, r"must be numbers \[H, W\], got \(2, 2, 2\)"),
        ({"GTcls": {"Segmentation": "text"}}, r"must be numbers \[H, W\]"),
        ({"GTcls": {"Segmentation": np.full((HEIGHT, WIDTH), 21)}}, "label 21 at row 0, column 0; wanted 0 to 20"),
    ],
)
def test_label_files_that_hold_something_else_are_named(
    tmp_path: Path, variables: dict[str, Any], message: str
) -> None:
    write_sbd(tmp_path)
    path = tmp_path / "benchmark_RELEASE/dataset/cls/2008_2.mat"
    mat(path, **variables)
    with pytest.raises(DataError, match=rf"2008_2\.mat: .*{message}"):
        sbd(tmp_path, "train")[0]


@pytest.mark.parametrize("cut", [0, 40, 200])
def test_damaged_mat_file_is_named(tmp_path: Path, cut: int) -> None:
    write_sbd(tmp_path)
    path = tmp_path / "benchmark_RELEASE/dataset/cls/2008_2.mat"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"2008_2\.mat: cannot read label map"):
        sbd(tmp_path, "train")[0]


def test_files_that_a_list_names_must_be_there(tmp_path: Path) -> None:
    write_voc(tmp_path)
    lines(tmp_path / "ImageSets/Segmentation/val.txt", "2007_1", "a", "b", "c")
    with pytest.raises(
        DataError,
        match=r"JPEGImages: image 'a' of the split's list is missing .*, and 2 more",
    ):
        voc(tmp_path, "val")


def test_depth_must_fit_its_image(tmp_path: Path) -> None:
    write_nyud(tmp_path)
    data = KINDS["nyud_color_depth"].load(tmp_path, "train")
    assert isinstance(data, FileDataset)
    path = tmp_path / "data/depth/img_5001.png"
    Image.fromarray(np.ones((HEIGHT, WIDTH + 1), np.uint16)).save(path)
    with pytest.raises(DataError, match=r"depth/img_5001\.png: 10x6, and the image beside it is 9x6"):
        data[0]
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    with pytest.raises(DataError, match=r"img_5001\.png: depth must be 16-bit millimeters"):
        data[0]


def test_color_and_depth_are_trained_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Early fusion through recipe and command line."""
    write_nyud(tmp_path)
    data = ["--data.kind=nyud_color_depth", f"--data.root={tmp_path}", "--data.test_split=train"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{kind: nyud_color_depth, root: {tmp_path}, val_split: train, augment: {{scale: [0.9, 1.1]}}}}\n"
        "model: {backbone: small}\n"
        "stages: {stride: [32], epochs: [1], lr: [0.001]}\n"
        f"trainer: {{run_dir: {tmp_path / 'run'}}}\n"
    )
    assert main(["train", str(recipe), "--data.preprocessing", "imagenet"]) == 2
    assert "have 4 channels; take published or fit" in capsys.readouterr().err
    fitted = tmp_path / "fitted"
    assert main(["train", str(recipe), "--data.preprocessing", "fit", "--trainer.run_dir", str(fitted)]) == 0
    assert load_weights(fitted / "best.safetensors").preprocessing.mean[3] == pytest.approx(8.2, abs=0.6)
    assert main(["train", str(recipe), "--data.preprocessing", "published"]) == 0
    weights = tmp_path / "run/best.safetensors"
    assert load_weights(weights).preprocessing.mean == (116.190, 97.203, 92.318, 7.844)
    assert main(["evaluate", str(weights), *data]) == 0
    assert "nyud_color_depth train, 1 images" in capsys.readouterr().out
