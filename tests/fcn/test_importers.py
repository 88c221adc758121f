"""``fcn data import``: the same small scene as every tool writes it, and what comes in that no tool should write.

Masks are drawn here by comparing coordinates; the compressed runs were made with pycocotools 2.0.11.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn.cli import _import, main
from fcn.data import ArrayDataset, Sample, find_sources, folder
from fcn.data.files import is_result
from fcn.data.importers import FORMATS, MASKS, MaskOptions, read_source, write
from fcn.data.importers.painting import filled, paint
from fcn.data.importers.rle import brush_mask, coco_mask, cvat_mask
from fcn.errors import DataError
from fcn.evaluation.gallery import save_gallery

WIDTH, HEIGHT = 40, 30
SIZE = (WIDTH, HEIGHT)
BOX = (4, 6, 22, 20)  # left, top, right, bottom
BOX_POINTS = [[4, 6], [22, 6], [22, 20], [4, 20]]
X, Y, RADIUS = 24, 15, 8.25
DIAMOND_POINTS = [[X, Y - RADIUS], [X + RADIUS, Y], [X, Y + RADIUS], [X - RADIUS, Y]]


def inside_box() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = True
    return mask


def inside_diamond() -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.asarray(abs(columns - X) + abs(rows - Y) < RADIUS)


def scene() -> np.ndarray:
    """A diamond (2, dog) over a box (1, cat) on background."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[inside_box()] = 1
    labels[inside_diamond()] = 2
    return labels


def photo(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save(path: Path, values: np.ndarray, palette: list[int] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)


def dump(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def png(mask: np.ndarray) -> str:
    with io.BytesIO() as buffer:
        Image.fromarray(mask).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()


def runs(mask: np.ndarray, order: Any) -> list[int]:
    """Lengths of runs of False and True in turn."""
    flat = mask.ravel(order)
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends.tolist(), flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


# --- A source as each tool writes it. ---


def shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def labelme_document(name: str, shapes: list[Any], **more: Any) -> dict[str, Any]:
    head = {"version": "5.5.0", "flags": {}, "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {**head, "imagePath": name, "shapes": shapes, **more}


def labelme(root: Path) -> None:
    photo(root / "images/a.png")
    shapes = [shape("cat", [[22, 20], [4, 6]], "rectangle"), shape("dog", DIAMOND_POINTS)]
    dump(root / "a.json", labelme_document("..\\images\\a.png", shapes))
    photo(root / "images/b.png")
    mask = inside_box()[BOX[1] : BOX[3], BOX[0] : BOX[2]]
    shapes = [shape("cat", [[4, 6], [21, 19]], "mask", mask=png(mask)), shape("dog", DIAMOND_POINTS)]
    shapes.append(shape("dog", [[1, 1], [9, 9]], "line"))
    dump(root / "b.json", labelme_document("images/b.png", shapes))
    with io.BytesIO() as buffer:
        Image.new("RGB", SIZE, (9, 99, 200)).save(buffer, "JPEG")
        data = base64.b64encode(buffer.getvalue()).decode()
    shapes = [shape("cat", BOX_POINTS), shape("dog", DIAMOND_POINTS)]
    dump(root / "c.json", labelme_document("gone.jpg", shapes, imageData=data))


def coco_document(names: list[str], segmentations: list[tuple[int, Any]], **more: Any) -> dict[str, Any]:
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(names, start=7)
    ]
    annotations = [
        {"id": 10 * image["id"] + n, "image_id": image["id"], "category_id": c, "segmentation": s, "iscrowd": 0}
        for image in images
        for n, (c, s) in enumerate(segmentations)
    ]
    categories = [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories, **more}


def flat(points: list[list[float]]) -> list[float]:
    return [number for point in points for number in point]


def coco(root: Path) -> None:
    for name in ("a", "b"):
        photo(root / f"val2017/{name}.png")
    photo(root / "train2017/c.png")
    halves = [[4, 6, 10, 6, 10, 20, 4, 20], [10, 6, 22, 6, 22, 20, 10, 20]]
    document = coco_document(["a.png"], [(3, halves), (18, [flat(DIAMOND_POINTS)])])
    counts = [{"size": [HEIGHT, WIDTH], "counts": runs(mask, "F")} for mask in (inside_box(), inside_diamond())]
    more = coco_document(["b.png"], [(3, counts[0]), (18, counts[1])])
    more["images"][0]["id"] = 8
    for annotation in more["annotations"]:
        annotation["image_id"] = 8
    document["images"] += more["images"]
    document["annotations"] += more["annotations"]
    dump(root / "annotations/instances_val2017.json", document)
    box, diamond = ({"size": [HEIGHT, WIDTH], "counts": text} for text in (BOX_COMPRESSED, DIAMOND_COMPRESSED))
    dump(root / "annotations/instances_train2017.json", coco_document(["c.png"], [(3, box), (18, diamond)]))


def roboflow_coco(root: Path) -> None:
    for split in ("train", "valid", "test"):
        photo(root / split / f"{split}1_png.rf.0123abcd.png")
        document = coco_document(
            [f"{split}1_png.rf.0123abcd.png"], [(3, [flat(BOX_POINTS)]), (18, [flat(DIAMOND_POINTS)])]
        )
        categories = [{"id": 0, "name": "pets", "supercategory": "none"}, *document["categories"]]
        document["categories"] = [{"supercategory": "pets", **category} for category in categories]
        dump(root / split / "_annotations.coco.json", document)


def roboflow_masks(root: Path) -> None:
    for split in ("train", "valid", "test"):
        photo(root / split / "a_jpg.rf.0123abcd.jpg")
        save(root / split / "a_jpg.rf.0123abcd_mask.png", scene())
        (root / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, cat\n2, dog\n")


def yolo(root: Path) -> None:
    def line(label: int, points: list[list[float]]) -> str:
        return " ".join([str(label), *(f"{x / WIDTH:.9f} {y / HEIGHT:.9f}" for x, y in points)])

    for split in ("train", "val"):
        photo(root / f"images/{split}/{split}1.png")
        labels = root / f"labels/{split}/{split}1.txt"
        labels.parent.mkdir(parents=True)
        labels.write_text(f"{line(0, BOX_POINTS)}\n{line(1, DIAMOND_POINTS)}\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n")


def cvat(root: Path) -> None:
    for name in ("a", "b"):
        photo(root / f"images/{name}.png")

    def text(points: list[list[float]]) -> str:
        return ";".join(f"{x:.2f},{y:.2f}" for x, y in points)

    mask = inside_diamond()
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    place = f'left="{columns[0]}" top="{rows[0]}" width="{cut.shape[1]}" height="{cut.shape[0]}"'
    (root / "annotations.xml").write_text(f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>pets</name><labels>
<label><name>cat</name><color>#fa3253</color></label><label><name>dog</name><color>#33ddff</color></label>
</labels></task></meta>
<image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">
  <polygon label="dog" source="manual" occluded="0" points="{text(DIAMOND_POINTS)}" z_order="1"></polygon>
  <box label="cat" source="manual" occluded="0" xtl="4.0" ytl="6.0" xbr="22.0" ybr="20.0" z_order="0"></box>
</image>
<image id="1" name="images/b.png" width="{WIDTH}" height="{HEIGHT}">
  <polygon label="cat" occluded="0" points="{text(BOX_POINTS)}" z_order="0"></polygon>
  <mask label="dog" occluded="0" rle="{", ".join(map(str, runs(cut, "C")))}" {place} z_order="0"></mask>
</image>
</annotations>""")


CVAT_COLORS = np.array([[0, 0, 0], [250, 50, 83], [51, 221, 255]], np.uint8)


def cvat_masks(root: Path) -> None:
    for name in ("a", "b"):
        photo(root / f"JPEGImages/{name}.jpg")
        save(root / f"SegmentationClass/{name}.png", CVAT_COLORS[scene()])
        save(root / f"SegmentationObject/{name}.png", CVAT_COLORS[scene()])
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:51,221,255::\n"
    )
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("a\nb\n")


def brush(mask: np.ndarray) -> list[int]:
    """As Label Studio packs it: runs of equal bytes, and single ones spelled out."""
    values = np.repeat(mask.ravel().astype(np.uint8) * 255, 4)
    bits = f"{values.size:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"  # sizes of 3, 4, 8 and 16 bits
    at = 0
    while at < values.size:
        end = at + 1
        while end < values.size and values[end] == values[at] and end - at < 1 << 16:
            end += 1
        if at % 3 == 0 and end - at >= 8:  # some words spelled out
            bits += "0" + "00" + f"{7:03b}" + "".join(f"{value:08b}" for value in values[at : at + 8])
            at += 8
        else:
            bits += "1" + "11" + f"{end - at - 1:016b}" + f"{values[at]:08b}"
            at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def result(kind: str, label: str, **value: Any) -> dict[str, Any]:
    head = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "type": kind}
    return {**head, "from_name": "label", "to_name": "image", "value": {**value, kind: [label]}}


def percent(points: list[list[float]]) -> list[list[float]]:
    return [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in points]


def label_studio(root: Path) -> None:
    photo(root / "a.png")
    photo(root / "sub/b.png")
    polygons = [
        result("polygonlabels", "cat", points=percent(BOX_POINTS)),
        result("polygonlabels", "dog", points=percent(DIAMOND_POINTS)),
    ]
    (left, top), (right, bottom) = percent([[4, 6], [22, 20]])
    box = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rotation": 0}
    masks = [
        result("rectanglelabels", "cat", **box),
        result("brushlabels", "dog", format="rle", rle=brush(inside_diamond())),
    ]
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/3/0123abcd-a.png"}, "annotations": [{"result": polygons}]},
        {
            "id": 2,
            "data": {"image": "/data/local-files/?d=sub/b.png"},
            "annotations": [{"was_cancelled": True, "result": []}, {"result": masks}],
        },
        {"id": 3, "data": {"image": "/data/upload/3/0123abcd-c.png"}, "annotations": []},
    ]
    dump(root / "project-3.json", tasks)


def parallel_folders(root: Path) -> None:
    for day in ("monday", "tuesday"):
        photo(root / f"field/{day}/images/img_01.jpg")
        save(root / f"field/{day}/ground_truth/gt_01.png", scene())
    (root / "classes.txt").write_text("background\ncat\ndog\n")


def one_folder(root: Path) -> None:
    for name in ("a", "b"):
        photo(root / f"{name}.jpg")
        save(root / f"{name}_label.png", scene())
    (root / "classes.txt").write_text("background\ncat\ndog\n")


def camvid_style(root: Path) -> None:
    for split in ("train", "test"):
        photo(root / split / "a.png")
        save(root / f"{split}annot/a.png", scene())
    (root / "classes.txt").write_text("background\ncat\ndog\n")


def color_table(root: Path) -> None:
    photo(root / "images/a.jpg")
    save(root / "masks/a.png", CVAT_COLORS[scene()])
    (root / "classes.csv").write_text("name,r,g,b\nbackground,0,0,0\ncat,250,50,83\ndog,51,221,255\n")


def palette(root: Path) -> None:
    photo(root / "photos/a.jpg")
    save(root / "masks/a.png", scene(), CVAT_COLORS.ravel().tolist())
    (root / "classes.txt").write_text("background\ncat\ndog\n")


def stack(root: Path) -> None:
    root.mkdir()
    pages = [Image.fromarray(np.full((HEIGHT, WIDTH), shade, np.uint16)) for shade in (100, 900, 4000)]
    pages[0].save(root / "volume.tif", save_all=True, append_images=pages[1:])
    masks = [Image.fromarray(scene())] * 3
    masks[0].save(root / "volume_labels.tif", save_all=True, append_images=masks[1:])
    (root / "classes.txt").write_text("background\ncat\ndog\n")


def arrays(root: Path) -> None:
    from scipy.io import savemat

    for name in ("a", "b"):
        photo(root / f"image/{name}.jpg")
    (root / "truth").mkdir()
    savemat(root / "truth/a.mat", {"groundTruth": {"Segmentation": scene(), "Boundaries": scene() > 1}})
    np.save(root / "truth/b.npy", scene().astype(np.int64))
    (root / "classes.txt").write_text("background\ncat\ndog\n")


PLAIN = [""]
SOURCES: list[tuple[Callable[[Path], None], str, dict[str, list[str]]]] = [
    (labelme, "labelme", {"": ["a", "b", "c"]}),
    (coco, "coco", {"train": ["c"], "val": ["a", "b"]}),
    (roboflow_coco, "coco", {split: [f"{name}1_png.rf.0123abcd"] for split, name in
                             (("train", "train"), ("val", "valid"), ("test", "test"))}),
    (roboflow_masks, "masks", {split: ["a_jpg.rf.0123abcd"] for split in ("train", "val", "test")}),
    (yolo, "yolo", {"train": ["train1"], "val": ["val1"]}),
    (cvat, "cvat", {"": ["a", "b"]}),
    (cvat_masks, "masks", {"": ["a", "b"]}),
    (label_studio, "label_studio", {"": ["a", "b"]}),
    (parallel_folders, "masks", {"": ["field_monday_images_img_01", "field_tuesday_images_img_01"]}),
    (one_folder, "masks", {"": ["a", "b"]}),
    (camvid_style, "masks", {"train": ["a"], "test": ["a"]}),
    (color_table, "masks", {"": ["a"]}),
    (palette, "masks", {"": ["a"]}),
    (stack, "masks", {"": ["volume_000001", "volume_000002", "volume_000003"]}),
    (arrays, "masks", {"": ["a", "b"]}),
]  # fmt: skip
BOX_COMPRESSED = "n3>`0000000000000000000000000000000000f`0"
DIAMOND_COMPRESSED = "^?2k02N2N2N2N2N2N2O01N2N2N2N2N2N2NS7"


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


# --- What comes in that no tool should write. ---


def run(source: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    """Exit code, and all that was printed; an error is one line."""
    code = main(["data", "import", str(source), str(source.parent / "out"), *more])
    printed = capsys.readouterr()
    errors = [line for line in printed.err.replace("\r", "\n").splitlines() if line.startswith("fcn data")]
    if code:
        assert len(errors) >= 1
        assert "unexpected" not in printed.err
    return code, "\n".join([*errors, printed.out])


def labels(source: Path, name: str, split: str = "") -> np.ndarray:
    return np.asarray(Image.open(source.parent / "out" / split / "masks" / f"{name}.png"))


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


# --- Masks: what their values mean, and which they are. ---


def plain(root: Path, masks: list[np.ndarray], name: str = "{}_mask.png") -> Path:
    for number, mask in enumerate(masks):
        photo(root / f"i{number}.jpg")
        save(root / name.format(f"i{number}"), mask)
    return root


def grays(*values: int) -> np.ndarray:
    """The scene, with these values for background, cat and dog."""
    return np.array(values, np.uint8)[scene()]


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


# --- What is given on the command line. ---


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


# --- The painter and the decoders, against plain loops. ---


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
