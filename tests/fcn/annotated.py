"""One small scene, a diamond over a box, as every tool writes it; masks are drawn by comparing coordinates."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn.cli import main

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
# By pycocotools 2.0.11.
BOX_COMPRESSED = "n3>`0000000000000000000000000000000000f`0"
DIAMOND_COMPRESSED = "^?2k02N2N2N2N2N2N2O01N2N2N2N2N2N2NS7"


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


def plain(root: Path, masks: list[np.ndarray], name: str = "{}_mask.png") -> Path:
    for number, mask in enumerate(masks):
        photo(root / f"i{number}.jpg")
        save(root / name.format(f"i{number}"), mask)
    return root


def grays(*values: int) -> np.ndarray:
    """The scene, with these values for background, cat and dog."""
    return np.array(values, np.uint8)[scene()]
