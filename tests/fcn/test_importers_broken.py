"""Annotations that no tool should write: named in one line, and the rest is imported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn.data import read_image
from fcn.data.importers import read_source, write
from fcn.data.importers.painting import paint
from fcn.errors import DataError
from tests.fcn.annotated import (
    BOX_POINTS,
    DIAMOND_POINTS,
    HEIGHT,
    SIZE,
    SOURCES,
    WIDTH,
    coco,
    coco_document,
    cvat,
    dump,
    flat,
    inside_box,
    inside_diamond,
    label_studio,
    labelme,
    labelme_document,
    labels,
    photo,
    run,
    shape,
    yolo,
)

SHAPES = [shape("cat", BOX_POINTS)]
BROKEN_LABELME: list[tuple[str, bytes, str]] = [
    ("cut off", json.dumps(labelme_document("b.png", SHAPES))[:-40].encode(), r"b\.json: not JSON"),
    ("bomb", b'{"shapes": ' + b"[" * 200_000, r"b\.json: nested too deeply"),
    ("latin", json.dumps(labelme_document("b.png", SHAPES)).encode().replace(b"cat", b"c\xe4t"), "not a text in UTF-8"),
    ("numbers", b'{"shapes": [], "imagePath": 1, "x": ' + b"9" * 5000 + b"}", r"b\.json: not JSON"),
    ("traversal", json.dumps(labelme_document("../../../etc/b.png.conf", SHAPES)).encode(), "is not there"),
    ("no image", json.dumps(labelme_document("b.png", SHAPES, imageData="AAAA")).encode(), "no image in base64"),
    ("not its file", b'{"a": 1}', "not labelme's JSON"),
    ("one point", json.dumps(labelme_document("b.png", [shape("cat", [[1, 2]])])).encode(), "3 points or more, got 1"),
    ("nan", b'{"imagePath": "b.png", "shapes": [{"label": "cat", "points": [[NaN, 1], [2, 3], [4, 9]]}]}', "no number"),
    ("far", json.dumps(labelme_document("b.png", [shape("cat", [[0, 1], [2, 3], [1e300, 9]])])).encode(), "no number"),
    ("words", json.dumps(labelme_document("b.png", [shape("cat", ["a", {}, None])])).encode(), "numbers in pairs"),
    ("no shape", json.dumps(labelme_document("b.png", [7])).encode(), "a label and points"),
    (
        "mask",
        json.dumps(labelme_document("b.png", [shape("cat", [[0, 0], [5, 5]], "mask", mask="?")])).encode(),
        "base64",
    ),
    ("other size", json.dumps(labelme_document("b.png", SHAPES, imageWidth=99)).encode(), "is for 99x30 pixels"),
]


@pytest.mark.parametrize(
    ("content", "message"), [case[1:] for case in BROKEN_LABELME], ids=[c[0] for c in BROKEN_LABELME]
)
def test_an_unusable_annotation_is_named_and_the_rest_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    source = tmp_path / "source"
    photo(source / "a.png")
    if "imageData" not in message and b"AAAA" not in content:
        photo(source / "b.png")
    dump(source / "a.json", labelme_document("a.png", SHAPES))
    (source / "b.json").write_bytes(content)
    code, printed = run(source, capsys)
    assert code == 1
    assert re.search(f"left out: .*{message}", printed), printed
    assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["a.png"]
    np.testing.assert_array_equal(labels(source, "a"), inside_box())


def test_images_and_shapes_that_are_not_as_usual_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for name in ("a", "b", "alone"):
        photo(source / f"{name}.png")
    beyond = [[-50, 6], [22, 6], [22, 20], [-50, 20]]
    thin = [[10.1, 2], [10.2, 28], [10.3, 2]]
    shapes = [shape("cat", beyond), shape("dog", thin), shape("__ignore__", DIAMOND_POINTS)]
    dump(source / "a.json", labelme_document("a.png", shapes))
    dump(source / "second.json", labelme_document("a.png", SHAPES))
    dump(source / "b.json", labelme_document("b.png", []))
    (source / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\nbird\n")
    code, printed = run(source, capsys)
    assert code == 1
    for message in (
        r"a\.json: a polygon reaches beyond its image and is cut off",
        r"a\.json: a shape covers the center of no pixel",
        r"alone\.png: nothing is said of this image; it is left out",
        r"2 of 4 classes are on no image: dog, bird",
        r"left out: .*: a second annotation of a\.png; the first is used",
        f"void {100 * inside_diamond().sum() / (2 * WIDTH * HEIGHT):.1f}",
    ):
        assert re.search(message, printed), (message, printed)
    assert (tmp_path / "out/classes.txt").read_text().split()[::2] == ["background", "dog", "cat", "bird"]
    assert not labels(source, "b").any()  # annotated, and nothing is on it


def one_coco(segmentation: Any, category: int = 3, **image: Any) -> dict[str, Any]:
    document = coco_document(["a.png", "b.png"], [(3, [flat(BOX_POINTS)])])
    document["annotations"][1] |= {"segmentation": segmentation, "category_id": category}
    document["images"][1] |= image
    return document


def sized(counts: Any, size: Any = (HEIGHT, WIDTH)) -> dict[str, Any]:
    return {"size": list(size), "counts": counts}


BROKEN_COCO = [
    (one_coco(sized([10, 1 << 39])), "runs of a mask are 549755813898 pixels long, and the mask has 1200"),
    (one_coco(sized([1200, -5, 5])), "lengths of runs must be whole numbers"),
    (one_coco(sized(["x"])), "lengths of runs must be whole numbers"),
    (one_coco(sized("o" * 100)), "no meaning"),
    (one_coco(sized("\x00\xff")), "no meaning"),
    (one_coco(sized("n3>o")), "ends within a number"),
    (one_coco(sized([1200], (1 << 20, 1 << 20))), "on an image of 30, 40"),
    (one_coco([[1, 2, 3, 4, 5]]), "numbers in pairs"),
    (one_coco("polygon"), "polygons or a mask"),
    (one_coco([flat(BOX_POINTS)], category=99), "there is no category 99"),
    (one_coco([flat(BOX_POINTS)], width=640, height=480), "is for 640x480 pixels, and the image is 40x30"),
    (one_coco([flat(BOX_POINTS)], file_name="../../../../etc/passwd"), "the image is not there"),
    (one_coco([flat(BOX_POINTS)], file_name="/gone/c.png"), "the image is not there"),
    (one_coco([flat(BOX_POINTS)], file_name="../secret.png"), "the image is not there"),
    (one_coco([flat(BOX_POINTS)], file_name="..\\secret.png"), "the image is not there"),
]


@pytest.mark.parametrize(("document", "message"), BROKEN_COCO, ids=range(len(BROKEN_COCO)))
def test_broken_coco_annotations_leave_their_image_out(tmp_path: Path, document: Any, message: str) -> None:
    source = tmp_path / "source"
    photo(tmp_path / "secret.png")  # outside the source
    for name in ("a", "b"):
        photo(source / f"{name}.png")
    dump(source / "_annotations.coco.json", document)
    _, found = read_source(source)
    write(found, tmp_path / "out")
    (line,) = found.left_out.lines()
    assert message in line
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == ["a.png"]


def test_images_are_turned_by_their_exif_orientation(tmp_path: Path) -> None:
    """Tools that turn them, as labelme does, give sizes and points of the upright picture; others are told apart."""
    source = tmp_path / "source"
    for name in ("upright", "stored"):
        photo(source / f"{name}.jpg")
        exif = Image.Exif()
        exif[0x0112] = 6  # the picture is stored lying on its side
        Image.open(source / f"{name}.jpg").save(source / f"{name}.jpg", exif=exif)
    shapes = [shape("cat", [[0, 0], [10, 35]], "rectangle")]
    turned = {"imageWidth": HEIGHT, "imageHeight": WIDTH}
    dump(source / "upright.json", labelme_document("upright.jpg", shapes, **turned))
    dump(source / "stored.json", labelme_document("stored.jpg", SHAPES))
    _, found = read_source(source)
    ((image, mask),) = write(found, tmp_path / "out").pairs[""]
    expected = np.zeros((WIDTH, HEIGHT), bool)
    expected[:35, :10] = True
    np.testing.assert_array_equal(np.asarray(Image.open(mask)), expected)
    assert read_image(image).shape == (WIDTH, HEIGHT, 3)
    assert "is for 40x30 pixels, and the image is 30x40, turned by its EXIF orientation" in found.left_out.lines()[0]


def test_coco_boxes_alone_and_annotations_of_no_image_are_said(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("a", "b"):
        photo(source / f"{name}.png")
    document = one_coco([])
    document["annotations"].append({"id": 9, "image_id": 12345, "category_id": 3, "segmentation": []})
    dump(source / "x.json", document)
    _, found = read_source(source / "x.json")
    assert not write(found, tmp_path / "out").pairs.keys() ^ {""}
    assert any("a box alone" in line for line in found.notes.lines())
    assert any("an annotation of no image" in line for line in found.notes.lines())
    dump(source / "x.json", {**document, "images": [{"id": "7"}]})
    with pytest.raises(DataError, match="whole number 'id'"):
        read_source(source)


def test_images_may_lie_elsewhere_and_the_name_that_agrees_most_is_taken(tmp_path: Path) -> None:
    dump(tmp_path / "labels/x.json", coco_document(["left/a.png", "right/a.png"], [(3, [flat(BOX_POINTS)])]))
    for side in ("left", "right"):
        photo(tmp_path / f"photos/{side}/a.png")
    format, found = read_source(tmp_path / "labels/x.json", images=tmp_path / "photos")
    assert format == "coco"
    pairs = write(found, tmp_path / "out").pairs[""]
    assert [image.name for image, _ in pairs] == ["left_a.png", "right_a.png"]
    ambiguous = coco_document(["a.png"], [(3, [flat(BOX_POINTS)])])
    dump(tmp_path / "labels/y.json", ambiguous)
    with pytest.raises(DataError, match=r"image 'a\.png' may be .*left/a\.png or .*right/a\.png"):
        read_source(tmp_path / "labels/y.json", images=tmp_path / "photos")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.1 0.1 0.9 oops 0.9 0.9", "a class and the numbers of a polygon are wanted"),
        ("7 0.1 0.1 0.9 0.1 0.9 0.9", "there is no class 7"),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9 0.5", "numbers in pairs"),
        ("0 1e999 0.1 0.9 0.1 0.9 0.9", "no number"),
        ("0 0.1 0.1", "3 points or more"),
    ],
)
def test_broken_yolo_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    yolo(tmp_path / "source")
    photo(tmp_path / "source/images/train/bare.png")
    labels = tmp_path / "source/labels/train/train1.txt"
    labels.write_text(labels.read_text() + line)
    _, found = read_source(tmp_path / "source", "yolo")
    (said,) = found.left_out.lines()
    assert re.search(rf"train1\.txt: line 3: .*{message}", said)
    assert [item.name for item in found.items] == ["images/train/bare", "images/val/val1"]
    assert any("bare.png: no file of labels: the image is all background" in note for note in found.notes.lines())


def test_yolo_splits_by_lists_and_by_folders_that_the_file_names(tmp_path: Path) -> None:
    line = " ".join(["1", *(f"{x / WIDTH} {y / HEIGHT}" for x, y in BOX_POINTS)])
    for folder_name, name in (("one", "a"), ("one", "b"), ("two", "c")):
        photo(tmp_path / f"source/{folder_name}/images/{name}.jpg")
        path = tmp_path / f"source/{folder_name}/labels/{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(line)
    (tmp_path / "source/part.txt").write_text("./one/images/a.jpg\n")
    (tmp_path / "source/data.yaml").write_text("train: part.txt\nval: [../two/images]\nnc: 2\nnames: ['cat', 'dog']\n")
    _, found = read_source(tmp_path / "source")
    assert {item.name: item.split for item in found.items} == {
        "one/images/a": "train",
        "one/images/b": "",
        "two/images/c": "val",
    }
    written = write(found, tmp_path / "out")
    assert {split: [image.name for image, _ in pairs] for split, pairs in written.pairs.items()} == {
        "train": ["a.jpg"],
        "val": ["c.jpg"],
    }
    assert "one/images/b: of no split, while others are" in found.left_out.lines()[0]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/val/masks/c.png")), 2 * inside_box())


def test_yolo_of_boxes_and_of_aliases_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    photo(source / "images/a.png")
    (source / "labels").mkdir()
    (source / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(DataError, match="no polygon, boxes perhaps"):
        read_source(source)
    (source / "data.yaml").write_text("a: &a [x, x]\nb: &b [*a, *a]\nnames: *b\n")
    with pytest.raises(DataError, match="no polygon"):  # its names are not read
        read_source(source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations></annotations>', "document type"),
        ("<annotations><image>", "not XML"),
        ("<annotations>" * 20_000, "not XML"),
        ('<annotations><track id="0" label="cat"></track></annotations>', "CVAT for images"),
        ('<annotations><image name="a.png" width="40" height="30"></image></annotations>', "no class is named"),
    ],
)
def test_broken_cvat_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(DataError, match=rf"annotations\.xml: .*{message}"):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("element", "message"),
    [
        ('<polygon label="cow" points="1,1;2,2;3,9"/>', "no label 'cow'"),
        ('<polygon label="cat" points="1,1;2,x;3,9"/>', "numbers in pairs"),
        ('<box label="cat" xtl="1" ytl="1" xbr="inf" ybr="2"/>', "xbr of a box must be a number"),
        (
            '<mask label="cat" rle="1, 99999999999" left="0" top="0" width="4" height="4"/>',
            "pixels long, and the mask has 16",
        ),
        ('<mask label="cat" rle="16" left="0" top="0" width="4000000" height="4"/>', "does not fit its image"),
        ('<mask label="cat" rle="0, 16" left="38" top="0" width="4" height="4"/>', "does not fit its image"),
    ],
)
def test_broken_cvat_shapes_leave_their_image_out(tmp_path: Path, element: str, message: str) -> None:
    cvat(tmp_path / "source")
    path = tmp_path / "source/annotations.xml"
    path.write_text(path.read_text().replace("</image>", f"{element}</image>", 1))
    _, found = read_source(tmp_path / "source")
    write(found, tmp_path / "out")
    (line,) = found.left_out.lines()
    assert re.search(rf"annotations\.xml.*{message}", line), line
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == ["b.png"]


def test_cvat_projects_have_images_of_one_name_in_subsets(tmp_path: Path) -> None:
    entries = ""
    for subset, points in (("Train", BOX_POINTS), ("Validation", DIAMOND_POINTS)):
        photo(tmp_path / f"source/images/{subset}/a.png")
        text = ";".join(f"{x},{y}" for x, y in points)
        shapes = f'<tag label="cat"/><polygon label="cat" points="{text}" z_order="1"/>'
        entries += f'<image id="0" name="a.png" subset="{subset}" width="40" height="30">{shapes}</image>'
    labels = "<label><name>cat</name><attributes><attribute><name>x</name></attribute></attributes></label>"
    head = f"<annotations><meta><project><labels>{labels}</labels></project></meta>"
    (tmp_path / "source/annotations.xml").write_text(f"{head}{entries}</annotations>")
    _, found = read_source(tmp_path / "source")
    write(found, tmp_path / "out")
    assert found.classes == ["background", "cat"]
    assert not found.left_out
    for split, expected in (("train", inside_box()), ("val", inside_diamond())):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"out/{split}/masks/a.png")), expected)


def test_cvat_rotated_boxes_and_ellipses(tmp_path: Path) -> None:
    cvat(tmp_path / "source")
    path = tmp_path / "source/annotations.xml"
    box = '<box label="cat" xtl="10" ytl="5" xbr="20" ybr="25" rotation="90"/>'  # 10 wide, 20 high, around 15, 15
    ellipse = '<ellipse label="dog" cx="30.0" cy="10.0" rx="8.0" ry="4.0" rotation="90"/>'
    text = re.sub(r"<image id=\"0\".*?</image>", "", path.read_text(), flags=re.DOTALL)
    text = re.sub(r"(<image id=\"1\"[^>]*>).*?</image>", rf"\1{box}{ellipse}</image>", text, flags=re.DOTALL)
    path.write_text(text)
    _, found = read_source(tmp_path / "source")
    write(found, tmp_path / "out")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[10:20, 5:25] = 1
    expected[((columns - 30) / 4) ** 2 + ((rows - 10) / 8) ** 2 < 1] = 2
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/masks/b.png")), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rle: rle[:-9], "ends too early"),
        (lambda rle: [0, 0, 0, 4, *rle[4:]], "holds 4 values"),
        (lambda rle: [255, 255, 255, 255, *rle[4:]], "holds 4294967295 values"),
        (lambda rle: [*rle[:20], 999], "0 to 255"),
        (lambda rle: "rle", "0 to 255"),
    ],
)
def test_broken_brushes_leave_their_image_out(tmp_path: Path, change: Callable[[Any], Any], message: str) -> None:
    label_studio(tmp_path / "source")
    path = tmp_path / "source/project-3.json"
    tasks = json.loads(path.read_text())
    value = tasks[1]["annotations"][1]["result"][1]["value"]
    value["rle"] = change(value["rle"])
    dump(path, tasks)
    _, found = read_source(tmp_path / "source")
    write(found, tmp_path / "out")
    assert [message in line for line in found.left_out.lines()] == [True]
    assert [path.name for path in (tmp_path / "out/images").iterdir()] == ["a.png"]


def test_label_studio_takes_the_first_of_several_annotations(tmp_path: Path) -> None:
    label_studio(tmp_path / "source")
    path = tmp_path / "source/project-3.json"
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"].append({"result": []})
    tasks[1]["annotations"][1]["result"][0]["image_rotation"] = 90
    dump(path, tasks)
    _, found = read_source(tmp_path / "source")
    assert [item.name for item in found.items] == ["a"]
    assert any("2 annotations of one image; the first is taken" in line for line in found.notes.lines())
    assert "turned while it was annotated" in found.left_out.lines()[0]


def test_random_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """Bytes changed anywhere in an annotation raise ``DataError``, or nothing."""
    random = np.random.default_rng(2)
    for make, format, _ in SOURCES:
        if format == "masks":
            continue
        source = tmp_path / make.__name__
        make(source)
        files = [path for path in source.rglob("*") if path.suffix in (".json", ".xml", ".txt", ".yaml")]
        for trial in range(12):
            path = files[trial % len(files)]
            good = path.read_bytes()
            broken = bytearray(good)
            for at in random.integers(0, len(good), 1 + trial % 4):
                broken[at] = random.integers(0, 256)
            path.write_bytes(broken)
            with suppress(DataError):
                _, found = read_source(source)
                write(found, tmp_path / f"{make.__name__}-{trial}")
            path.write_bytes(good)


JUNK = [None, True, -1, 10**30, 0.5, float("nan"), "", "x", [], [[]], {}, {"id": 3}, ["cat", 1]]


def with_junk(document: Any, random: np.random.Generator) -> Any:
    """A copy in which one value, at any depth, is another."""
    if not isinstance(document, (dict, list)) or not document or random.random() < 0.15:
        return JUNK[random.integers(len(JUNK))]
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    chosen = keys[random.integers(len(keys))]
    copy = document.copy()
    copy[chosen] = with_junk(document[chosen], random)
    return copy


@pytest.mark.parametrize("make", [labelme, coco, label_studio])
def test_values_of_other_kinds_are_read_or_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    random = np.random.default_rng(3)
    source = tmp_path / "source"
    make(source)
    files = sorted(source.rglob("*.json"))
    documents = [json.loads(path.read_text()) for path in files]
    for trial in range(JUNK_TRIALS):
        which = trial % len(files)
        dump(files[which], with_junk(documents[which], random))
        with suppress(DataError):
            _, found = read_source(source, format=None if trial % 2 else FORMAT_OF[make])
            for item in found.items:
                with suppress(ValueError):
                    paint(item, SIZE, found.notes)
        dump(files[which], documents[which])


JUNK_TRIALS = 60
FORMAT_OF = {labelme: "labelme", coco: "coco", label_studio: "label_studio"}
