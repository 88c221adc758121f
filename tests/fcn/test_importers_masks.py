"""``fcn data import`` of masks: what their values mean, and which files they are."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn.cli import main
from fcn.data.importers import MaskOptions, read_source, write
from fcn.errors import DataError
from tests.fcn.annotated import CVAT_COLORS, HEIGHT, SIZE, WIDTH, grays, labels, photo, plain, run, save, scene


@pytest.mark.parametrize(
    ("mask", "classes", "expected"),
    [
        (grays(0, 0, 255), ["background", "object"], grays(0, 0, 1)),
        (grays(0, 255, 255), ["background", "object"], grays(0, 1, 1)),
        (grays(0, 1, 255), ["class 0", "class 1"], grays(0, 1, 255)),
        (grays(0, 100, 200), ["value 0", "value 100", "value 200"], grays(0, 1, 2)),
        (grays(0, 128, 255), ["value 0", "value 128", "value 255"], grays(0, 1, 2)),
        (grays(1, 2, 3), ["value 1", "value 2", "value 3"], grays(0, 1, 2)),
        (grays(0, 9, 255), ["value 0", "value 9"], grays(0, 1, 255)),
        (np.array([[0, 0, 0], [9, 200, 7], [0, 0, 90]], np.uint8)[scene()],
         ["color 0,0,0", "color 0,0,90", "color 9,200,7"], grays(0, 2, 1)),
    ],
)  # fmt: skip
def test_values_without_a_table(tmp_path: Path, mask: np.ndarray, classes: list[str], expected: np.ndarray) -> None:
    _, found = read_source(plain(tmp_path / "source", [mask] * 2))
    assert found.classes == classes
    assert found.items[1].labels is not None
    np.testing.assert_array_equal(found.items[1].labels(), expected)


def test_masks_as_jpeg_are_black_or_white(tmp_path: Path) -> None:
    coarse = np.kron(grays(0, 255, 255), np.ones((7, 7), np.uint8))
    source = tmp_path / "source"
    photo(source / "i.png", (7 * WIDTH, 7 * HEIGHT))
    (source / "masks").mkdir()
    Image.fromarray(coarse).save(source / "masks/i.jpg", quality=90)
    assert len(np.unique(np.asarray(Image.open(source / "masks/i.jpg")))) > 2
    _, found = read_source(source)
    assert found.classes == ["background", "object"]
    assert found.items[0].labels is not None
    assert (found.items[0].labels() != (coarse > 127)).mean() < 0.002
    assert any("compressed with loss" in note for note in found.notes.lines())


def test_values_and_names_by_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    photo(source / "one/photo/x.jpg")
    save(source / "one/other/x-L.png", grays(7, 30, 99))
    photo(source / "two/photo/x.jpg")
    save(source / "two/other/x-L.png", grays(7, 30, 99))
    assert main(["data", "import", str(source), str(tmp_path / "out")]) == 2
    assert "no annotations and no masks that are known" in capsys.readouterr().err
    patterns = ["--data.images", "**/photo/*.jpg", "--data.masks", "**/other/*-L.png"]
    code, printed = run(source, capsys, *patterns, "--data.classes", "{ground: 7, void: 30, pond: 99}")
    assert code == 0, printed
    np.testing.assert_array_equal(labels(source, "one_photo_x"), grays(0, 255, 1))
    assert (tmp_path / "out/classes.txt").read_text().split()[::2] == ["ground", "pond"]
    assert main(["data", "import", str(source), str(tmp_path / "new"), "--data.root", "x"]) == 2
    assert "data import takes --data.images" in capsys.readouterr().err


def test_masks_that_cannot_be_used_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = plain(tmp_path / "source", [scene()] * 4)
    photo(source / "alone.jpg")
    photo(source / "damaged.jpg")
    (source / "damaged_mask.png").write_bytes(b"")  # the first of all
    save(source / "i1_mask.png", scene()[:-1])
    (source / "i2_mask.png").write_bytes(b"no image")
    Image.new("L", SIZE, 200).save(source / "stray_mask.png")
    (source / "i3_mask.png").unlink()
    np.save(source / "i3_mask.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    code, printed = run(source, capsys)
    assert code == 1
    for message in (
        r"i1_mask\.png: the label map is 40x29",
        r"i2_mask\.png: cannot read",
        r"i3_mask\.npy: cannot read label map: .*Python objects",
        r"alone\.jpg: no mask belongs to this image",
        r"stray_mask\.png: no image belongs to this mask",
    ):
        assert re.search(f"left out: .*{message}" if "cannot" in message or "40x29" in message else message, printed)
    np.testing.assert_array_equal(labels(source, "i0"), scene())


def test_beside_a_jpeg_the_other_file_of_its_name_is_the_mask(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(2):
        photo(source / f"deep/i{number}.jpg")
        save(source / f"deep/i{number}.png", scene())
    _, found = read_source(source)
    assert [item.annotation.name for item in found.items] == ["i0.png", "i1.png"]
    photo(source / "deep/i1.bmp")
    with pytest.raises(DataError, match="which is meant"):
        read_source(source)


def test_pictures_of_single_objects_and_masks_of_one_class_are_said(tmp_path: Path) -> None:
    source = tmp_path / "source"
    photo(source / "img/a.png")
    save(source / "masks_machine/a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    save(source / "masks_human/a.png", CVAT_COLORS[scene()])
    _, found = read_source(source)
    write(found, tmp_path / "out")
    assert any("one class only (class 0)" in line for line in found.notes.lines())
    photo(source / "photo/a.png")
    with pytest.raises(DataError, match=r"img/a\.png and .*photo/a\.png: which is meant"):
        read_source(source)


def test_arrays_of_several_variables_need_a_key(tmp_path: Path) -> None:
    from scipy.io import savemat

    photo(tmp_path / "source/x.jpg")
    savemat(tmp_path / "source/x.mat", {"one": scene(), "two": scene().T})
    with pytest.raises(
        DataError, match=r"x\.mat: which array is the label map\? one \[30, 40\], two \[40, 30\]; --key"
    ):
        read_source(tmp_path / "source")
    _, found = read_source(tmp_path / "source", options=MaskOptions(key="one"))
    assert found.items[0].labels is not None
    np.testing.assert_array_equal(found.items[0].labels(), scene())
