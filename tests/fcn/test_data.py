from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fcn.data import (
    Augmentation,
    FileDataset,
    ShuffledBatches,
    camvid,
    collate,
    folder,
    mri,
    read_image,
    read_labels,
    training_loader,
    voc,
    voc_palette,
    write_labels,
)
from fcn.data.augment import to_tensor
from fcn.data.mri import slices
from fcn.data.preprocessing import Preprocessing
from fcn.errors import DataError

PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "rgb", scale=1.0)


def test_folder_reads_what_was_written(shapes: Path) -> None:
    data = folder(shapes, "train")
    assert data.classes == ["ground", "square", "disk"]
    assert len(data) == 6
    sample = data[0]
    assert sample["image"].shape == (48, 64, 3)
    assert sample["name"] == "train0"
    np.testing.assert_array_equal(sample["target"], np.asarray(Image.open(shapes / "train/masks/train0.png")))
    assert set(np.unique(sample["target"])) == {0, 1, 2, 255}


def make_layout(root: Path, layout: int, count: int = 10) -> Path:
    for index in range(count):
        split = ("train", "val")[index % 2]
        images, masks = {
            1: (root / split / "images", root / split / "masks"),
            2: (root / "images" / split, root / "masks" / split),
        }.get(layout, (root / "images", root / "masks"))
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(images / f"{index}.png")
        Image.fromarray(np.full((6, 8), index % 4, np.uint8)).save(masks / f"{index}.png")
    return root


@pytest.mark.parametrize("layout", [1, 2, 3, 4])
def test_folder_layouts_and_class_names_found_in_masks(tmp_path: Path, layout: int) -> None:
    make_layout(tmp_path, layout)
    if layout == 3:
        (tmp_path / "train.txt").write_text("0\n2\n4\n6\n8\n")
        (tmp_path / "val.txt").write_text("1\n3\n\n5\n7\n9\n")
    train, val = folder(tmp_path, "train"), folder(tmp_path, "val")
    assert (len(train), len(val)) == ((8, 1) if layout == 4 else (5, 5))
    # Odd labels 1 and 3 are in val alone: all splits are looked at, so that they agree.
    assert train.classes == val.classes == ["class 0", "class 1", "class 2", "class 3"]


def test_voc_layout(tmp_path: Path) -> None:
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / name).mkdir(parents=True)
    target = np.array([[0, 15], [255, 20]], np.uint8)
    Image.new("RGB", (2, 2), (9, 9, 9)).save(tmp_path / "JPEGImages/a.jpg")
    write_labels(tmp_path / "SegmentationClass/a.png", target, voc_palette(21))
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("a\n")
    data = voc(tmp_path, "val")
    assert len(data.classes) == 21
    assert data.palette[15] == (192, 128, 128)  # person
    np.testing.assert_array_equal(data[0]["target"], target)
    with pytest.raises(DataError, match=r"train\.txt: list not found"):
        voc(tmp_path, "train")


def test_labels_written_are_read_back_with_their_palette(tmp_path: Path) -> None:
    target = np.random.default_rng(0).integers(0, 5, (7, 9)).astype(np.uint8)
    target[0, 0] = 255
    write_labels(tmp_path / "x.png", target, voc_palette(5))
    np.testing.assert_array_equal(read_labels(tmp_path / "x.png", 5), target)
    image = Image.open(tmp_path / "x.png")
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert image.convert("RGB").getpixel((1, 0)) == voc_palette(5)[target[0, 1]]
    assert list(tmp_path.iterdir()) == [tmp_path / "x.png"]


def test_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"broken\.jpg: cannot read image: .*truncated"):
        read_image(path)
    path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"broken\.jpg: cannot read image"):
        read_image(path)
    with pytest.raises(DataError, match=r"gone\.jpg: image not found"):
        read_image(tmp_path / "gone.jpg")


def test_label_out_of_range_gives_value_and_position(tmp_path: Path) -> None:
    target = np.zeros((4, 5), np.uint8)
    target[2, 3] = 11
    Image.fromarray(target).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: label 11 at row 2, column 3; wanted 0 to 10, or 255"):
        read_labels(tmp_path / "m.png", 11)
    assert read_labels(tmp_path / "m.png", 12)[2, 3] == 11


def test_color_mask_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (3, 3), (9, 0, 0)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: .*one channel, got mode RGB"):
        read_labels(tmp_path / "m.png", 2)


def test_wrong_size_missing_mask_and_missing_split(shapes: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(shapes, root)
    Image.new("L", (60, 48)).save(root / "train/masks/train0.png")
    with pytest.raises(DataError, match=r"train0\.png: the label map is 60x48 and its image train0\.png is 64x48"):
        folder(root, "train")[0]
    (root / "train/masks/train1.png").unlink()
    with pytest.raises(DataError, match=r"masks: mask of image 'train1\.png' is missing"):
        folder(root, "train")
    with pytest.raises(DataError, match="split 'holdout' not found"):
        folder(root, "holdout")
    with pytest.raises(DataError, match=r"holdout.images: folder not found"):
        camvid(root, "holdout")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_image_mode_gives_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image = Image.fromarray(np.full((4, 6), 60000, np.uint16)) if mode == "I;16" else Image.new("L", (6, 4), 255)
    (image if mode == "I;16" else image.convert(mode)).save(path)
    pixels = read_image(path)
    assert pixels.shape == (4, 6, 3)
    assert pixels.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    assert (pixels == (60000 if mode == "I;16" else 255)).all()


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 40), width=st.integers(1, 40), crop=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    scale=st.sampled_from([(1.0, 1.0), (0.3, 3.0)]), seed=st.integers(0, 99),
)  # fmt: skip
def test_augmentation_keeps_image_and_labels_together(
    height: int, width: int, crop: tuple[int, int], scale: tuple[float, float], seed: int
) -> None:
    """The image is its own label map, so after any view labeled pixels must still match."""
    random = np.random.default_rng(seed)
    target = random.integers(0, 2, (1, width)).astype(np.uint8).repeat(height, 0) * np.uint8(200)
    image = target[:, :, None].repeat(3, 2)
    view = Augmentation(mirror=True, scale=scale, crop=crop)
    a, b = view.resize_and_mirror(image, target, np.random.default_rng(seed))
    assert a.shape[:2] == b.shape
    pixels, labels = view.cut(PLAIN(a), to_tensor(b), np.random.default_rng(seed))
    assert pixels.shape == (3, *crop)
    assert labels.shape == crop
    labeled = labels != 255
    assert labeled.any()
    assert (pixels[:, ~labeled] == 0).all()
    if scale == (1.0, 1.0):
        assert (pixels[0][labeled] == labels[labeled]).all()
    else:  # bilinear pixels mix neighbors and nearest labels do not: compare where the pixel is not mixed
        unmixed = labeled & ((pixels[0] == 0) | (pixels[0] == 200))
        assert unmixed.float().mean() == 0 or (pixels[0] == labels)[unmixed].float().mean() > 0.5


def test_mirror_happens_in_half_of_the_views_to_both() -> None:
    target = np.arange(6, dtype=np.uint8)[None]
    view = Augmentation(mirror=True)
    flipped = 0
    for seed in range(200):
        image, labels = view.resize_and_mirror(target[:, :, None].repeat(3, 2), target, np.random.default_rng(seed))
        np.testing.assert_array_equal(image[:, :, 0], labels)
        flipped += labels[0, 0] == 5
    assert 70 < flipped < 130


def test_bad_augmentation() -> None:
    with pytest.raises(ValueError, match=r"augment\.scale"):
        Augmentation(scale=(2.0, 1.0))
    with pytest.raises(ValueError, match=r"augment\.crop"):
        Augmentation(crop=(0, 4))


@settings(deadline=None, max_examples=50)
@given(samples=st.integers(1, 30), batch_size=st.integers(1, 8), epochs=st.integers(1, 4), data=st.data())
def test_shuffled_batches_resume_anywhere(samples: int, batch_size: int, epochs: int, data: st.DataObject) -> None:
    def draw(first_step: int) -> list[list[tuple[int, int]]]:
        batches = ShuffledBatches(samples, batch_size, seed=5, first_step=first_step)
        drawn = []
        for epoch in range(first_step // len(batches), epochs):
            batches.set_epoch(epoch)
            drawn += list(batches)
        return drawn

    everything = draw(0)
    steps = epochs * -(-samples // batch_size)
    assert len(everything) == steps
    for epoch in range(epochs):
        assert sorted(i for batch in everything for e, i in batch if e == epoch) == list(range(samples))
    first_step = data.draw(st.integers(0, steps - 1))
    assert draw(first_step) == everything[first_step:]


def test_training_batches_do_not_depend_on_workers(shapes: Path) -> None:
    view = Augmentation(mirror=True, scale=(0.7, 1.4), crop=(40, 40))
    loaders = [
        training_loader(folder(shapes, "train"), PLAIN, view, batch_size=2, seed=1, workers=workers)
        for workers in (0, 2)
    ]
    for one, two in zip(*loaders, strict=True):
        assert torch.equal(one[0]["image"], two[0]["image"])
        assert torch.equal(one[0]["target"], two[0]["target"])


def test_collate_groups_sizes_without_padding(shapes: Path) -> None:
    data = folder(shapes, "test")
    assert isinstance(data, FileDataset)
    pairs = [(PLAIN(data[i]["image"]), torch.from_numpy(data[i]["target"])) for i in (0, 1, 0)]
    groups = collate(pairs)
    assert [tuple(group["target"].shape) for group in groups] == [(2, 48, 64), (1, 55, 69)]
    assert torch.equal(groups[1]["image"][0], pairs[1][0])


def test_mri_slices_of_splits_are_apart() -> None:
    sets = {split: slices(split) for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in sets.items()} == {"train": 115, "val": 16, "test": 24}
    for a in sets:
        for b in sets:
            if a < b:
                assert min(abs(x - y) for x in sets[a] for y in sets[b]) == 3  # two slices between
    with pytest.raises(DataError, match="split 'dev' not found"):
        slices("dev")


def test_mri_labels_follow_brightness() -> None:
    """T1 images: fluid is darker than grey matter, and grey than white; outside the brain there is nothing."""
    pytest.importorskip("nilearn")
    data = mri("val")
    image = np.stack([sample["image"] for sample in data.samples])
    target = np.stack([sample["target"] for sample in data.samples])
    assert image.shape == target.shape == (16, 800, 800)
    background, fluid, grey, white = (image[target == index].mean() for index in range(4))
    assert background < 2 < fluid < grey < white
    assert (target > 0).mean() > 0.2


def test_mri_without_nilearn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(DataError, match="pip install nilearn"):
        mri("test")


def test_camvid_for_real(real_data: Path) -> None:
    counts = {split: len(camvid(real_data / "camvid", split)) for split in ("train", "val", "test")}
    assert counts == {"train": 367, "val": 101, "test": 233}
    data = camvid(real_data / "camvid", "val")
    assert len(data.classes) == 11
    assert data.palette[3] == (128, 64, 128)  # road
    assert data[0]["target"].shape == (360, 480)


def test_voc_for_real(real_data: Path) -> None:
    data = voc(real_data / "voc-sample/VOCdevkit/VOC2012", "val")
    assert {data[i]["name"]: set(np.unique(data[i]["target"])) for i in range(3)} == {
        "2007_000033": {0, 1, 255},
        "2007_000042": {0, 19, 255},
        "2007_000129": {0, 2, 15, 255},
    }
