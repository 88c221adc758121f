"""``fcn data import``: the same small scene as every tool writes it, to folders of images and masks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn.cli import _import, main
from fcn.data import ArrayDataset, Sample, find_sources, folder
from fcn.data.files import is_result
from fcn.data.importers import FORMATS, MASKS, read_source, write
from fcn.data.importers.painting import filled
from fcn.data.importers.rle import brush_mask, coco_mask, cvat_mask
from fcn.evaluation.gallery import save_gallery
from tests.fcn.annotated import (
    BOX_POINTS,
    HEIGHT,
    SIZE,
    SOURCES,
    WIDTH,
    brush,
    coco_document,
    color_table,
    cvat,
    cvat_masks,
    dump,
    flat,
    grays,
    inside_box,
    label_studio,
    labelme,
    labelme_document,
    one_folder,
    palette,
    photo,
    plain,
    roboflow_coco,
    run,
    runs,
    save,
    scene,
    shape,
    stack,
)


@pytest.mark.parametrize(("make", "format", "expected"), SOURCES, ids=lambda value: getattr(value, "__name__", ""))
def test_every_format_gives_the_scene(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], None],
    format: str,
    expected: dict[str, list[str]],
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    make(source)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert main(["data", "import", str(source), str(out)]) == 0
    printed = capsys.readouterr()
    assert f"(--format {format})" in printed.out
    assert "left out:" not in printed.err
    assert (out / "summary.png").is_file()
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    for split, names in expected.items():
        masks = sorted((out / split / "masks").iterdir())
        images = sorted((out / split / "images").iterdir())
        assert [path.stem for path in masks] == [path.stem for path in images] == names
        for mask, image in zip(masks, images, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(mask)), scene())
            assert Image.open(mask).mode == "P"
            assert Image.open(image).size == SIZE
    lines = (out / "classes.txt").read_text().splitlines()
    assert [line.split(" #")[0] for line in lines] == ["background", "cat", "dog"]
    if make in (cvat, cvat_masks, color_table, palette):  # their own colors are kept
        assert lines[1:] == ["cat #fa3253", "dog #33ddff"]
        assert Image.open(masks[0]).getpalette()[3:9] == [250, 50, 83, 51, 221, 255]  # type: ignore[index]


def test_places_that_cannot_be_read_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    one_folder(source)
    labelme(source / "annotated")
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.json").write_text("[" * 100_000)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "x.zip").write_bytes(b"PK")
    for arguments, message in (
        ([source, source / "out"], "lies in"),
        ([source, tmp_path / "full"], "there is something already"),
        ([source, source / "a.jpg"], "there is something already"),
        ([tmp_path / "gone", tmp_path / "out"], "no such file or folder"),
        ([tmp_path / "x.zip", tmp_path / "out"], "an archive; unpack it"),
        ([empty, tmp_path / "out"], r"no annotations and no masks .*notes\.json: nested too deeply"),
        ([source, tmp_path / "out"], r"this may be labelme .*, masks .*; --format NAME chooses"),
        ([source, tmp_path / "out", "--format", "coco"], "nothing of COCO's JSON here"),
        ([source, tmp_path / "out", "--images", tmp_path / "gone"], r"gone: no such folder"),
    ):
        assert main(["data", "import", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(message, line), line
    assert (tmp_path / "full/mine.txt").read_text() == "mine"
    assert not (tmp_path / "out").exists()
    assert main(["data", "import", str(source), str(tmp_path / "out"), "--format", "labelme"]) == 0


def test_label_studio_minimal_json(tmp_path: Path) -> None:
    source = tmp_path / "source"
    label_studio(source)
    entries = []
    for task in json.loads((source / "project-3.json").read_text())[:2]:
        results = task["annotations"][-1]["result"]
        sizes = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
        fields = {"image": task["data"]["image"], "id": task["id"], "annotator": 1, "lead_time": 9.5}
        entries.append({**fields, "label": [{**result["value"], **sizes} for result in results]})
    dump(source / "project-3.json", [*entries, {"image": "/data/upload/1/gone.png", "id": 9, "annotator": 1}])
    format, found = read_source(source)
    assert (format, found.classes) == ("label_studio", ["background", "cat", "dog"])
    for _, mask in write(found, tmp_path / "out").pairs[""]:
        np.testing.assert_array_equal(np.asarray(Image.open(mask)), scene())
    assert "task 9: the image is not there" in found.left_out.lines()[0]


def test_formats_on_the_command_line_are_those_that_there_are() -> None:
    assert (*FORMATS, MASKS) == _import.FORMATS


def test_what_needs_no_import_is_said_and_nothing_else(tmp_path: Path) -> None:
    names = "background\nobject\n"
    for name, mask in (("indices", grays(0, 1, 1)), ("black and white", grays(0, 255, 255))):
        root = tmp_path / name
        for number in range(10):
            photo(root / f"images/{number}.png")
            save(root / f"masks/{number}.png", mask)
        (root / "classes.txt").write_text(names)
    said = [" ".join(read_source(tmp_path / name)[1].notes.lines()) for name in ("indices", "black and white")]
    assert ["it needs no import" in text for text in said] == [True, False]


def test_stacks_of_other_lengths_are_named(tmp_path: Path) -> None:
    stack(tmp_path / "source")
    plain(tmp_path / "source", [scene()])
    two = [Image.fromarray(scene())] * 2
    two[0].save(tmp_path / "source/volume_labels.tif", save_all=True, append_images=two[1:])
    _, found = read_source(tmp_path / "source")
    assert "volume_labels.tif: 2 pages, and its image volume.tif has 3" in found.left_out.lines()[0]
    assert [item.name for item in found.items] == ["i0"]


def test_pages_of_stacks_are_no_results_of_prediction(tmp_path: Path) -> None:
    stack(tmp_path / "source")
    _, found = read_source(tmp_path / "source")
    ((image, mask), *_) = write(found, tmp_path / "out").pairs[""]
    assert np.asarray(Image.open(image)).dtype == np.uint16
    assert (np.asarray(Image.open(image)) == 100).all()
    sources, _ = find_sources([str(tmp_path / "out/images")])
    assert sources[0].path == image
    assert is_result(mask)


def test_pictures_that_may_be_masks_of_each_other_do_not_hide_annotations(tmp_path: Path) -> None:
    labelme(tmp_path / "source")
    photo(tmp_path / "source/images/b.bmp")
    format, _ = read_source(tmp_path / "source")
    assert format == "labelme"


def test_splits_are_kept_or_left_to_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roboflow_coco(tmp_path / "source")
    assert run(tmp_path / "source", capsys, "--split", "none")[0] == 0
    assert len(list((tmp_path / "out/images").iterdir())) == 3
    one = tmp_path / "one"
    photo(one / "train/a.png")
    dump(one / "train/_annotations.coco.json", coco_document(["a.png"], [(3, [flat(BOX_POINTS)])]))
    _, found = read_source(one)
    assert write(found, tmp_path / "out of one").pairs.keys() == {""}
    assert any("all images are of the split train" in line for line in found.notes.lines())


def test_what_is_written_can_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for number in range(10):
        photo(source / f"{number}.png")
        dump(source / f"{number}.json", labelme_document(f"{number}.png", [shape("cat", BOX_POINTS)]))
    assert run(source, capsys)[0] == 0
    assert main(["data", "check", str(tmp_path / "out")]) == 0
    assert "No problems found" in capsys.readouterr().out
    data = folder(tmp_path / "out", "train")
    assert (len(data), data.classes) == (8, ["background", "cat"])
    np.testing.assert_array_equal(data[0]["target"], inside_box())
    picture = tmp_path / "page.png"
    assert main(["data", "show", str(tmp_path / "out"), "--out", str(picture)]) == 0
    assert "10 of 10 images" in capsys.readouterr().out
    assert Image.open(picture).width >= 4 * 320
    few = tmp_path / "few"
    for number in range(3):
        photo(few / f"images/{number}.png")
        save(few / f"masks/{number}.png", scene())
    assert main(["data", "show", str(few), "--out", str(picture)]) == 1
    printed = capsys.readouterr()
    assert "fcn data show: " in printed.err
    assert "too few to divide" in printed.err
    assert "3 of 3 images" in printed.out
    picture.write_bytes(b"mine")
    assert main(["data", "show", str(tmp_path / "out"), "--out", str(picture)]) == 2
    assert "a file is there that fcn did not write" in capsys.readouterr().err
    assert picture.read_bytes() == b"mine"


def test_a_page_shows_labels_over_images_and_leaves_background_clear(tmp_path: Path) -> None:
    sample: Sample = {"image": np.full((HEIGHT, WIDTH, 3), 100, np.uint8), "target": grays(0, 1, 255), "name": "gray"}
    data = ArrayDataset([sample], ["background", "cat"], [(0, 0, 0), (200, 40, 0)])
    assert save_gallery(tmp_path / "page.png", [("train", data)]) == 1
    page = np.asarray(Image.open(tmp_path / "page.png"))
    enlarged = page[: 8 * HEIGHT, : 8 * WIDTH][4::8, 4::8]
    mixed = np.rint(0.45 * 100 + 0.55 * np.array([200, 40, 0]))
    assert (enlarged[scene() == 1] == mixed).all()
    assert (enlarged[scene() != 1] == 100).all()  # background and void


def test_polygons_own_the_pixels_whose_centers_they_hold() -> None:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:30, :40] + 0.5
    for _ in range(60):
        points = random.uniform(-8, 45, (random.integers(3, 9), 2))
        left, top, mask = filled(points, SIZE)
        found = np.zeros((30, 40), bool)
        found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
        odd = np.zeros((30, 40), bool)  # crossings to the left of each center
        for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, 0), strict=True):
            crosses = (ay <= rows) != (by <= rows)
            odd ^= crosses & (ax + (rows - ay) / (by - ay) * (bx - ax) <= columns)
        np.testing.assert_array_equal(found, odd)


def test_runs_of_random_masks() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        height, width = random.integers(1, 12, 2)
        mask = random.random((height, width)) < 0.5
        np.testing.assert_array_equal(coco_mask(runs(mask, "F"), height, width), mask)
        np.testing.assert_array_equal(cvat_mask(runs(mask, "C"), height, width), mask)
        np.testing.assert_array_equal(brush_mask(brush(mask), height, width), mask)
