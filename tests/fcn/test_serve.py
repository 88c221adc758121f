"""What ``fcn serve`` answers to good, wrong and broken requests, as a real server on this machine."""

from __future__ import annotations

import base64
import io
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn.data import read_labels
from fcn.data.files import RESULT_MARK, read_image
from fcn.data.labels import read_palette
from fcn.evaluation.overlays import save_overlay

for package in ("prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (the extra serve)")

from fcn.serving.app import create_app  # noqa: E402
from fcn.serving.limits import Limits  # noqa: E402
from tests.fcn.serving import GOOD, Server, file_of, picture, predictor, serving, started  # noqa: E402

JPEG = file_of(picture(), "JPEG")


@pytest.fixture
def server() -> Iterator[Server]:
    with started() as running:
        yield running


@pytest.fixture(scope="module")
def lasting() -> Iterator[Server]:
    """For tests that neither count nor hold it up."""
    with started() as running:
        yield running


def test_labels_overlay_and_confidence_are_those_of_the_predictor(lasting: Server, tmp_path: Path) -> None:
    image = picture(3, 97, 61)
    labels, confidence = lasting.predictor.with_confidence([image])[0]
    assert len(np.unique(labels)) > 1
    reply = lasting.post(file_of(image))
    assert reply.status == 200
    assert reply.headers["content-type"] == "image/png"
    assert re.fullmatch(r"(\w+;dur=[\d.]+(, )?){5}", reply.headers["server-timing"])
    assert RESULT_MARK in reply.body[:256]
    path = tmp_path / "labels.png"
    path.write_bytes(reply.body)
    np.testing.assert_array_equal(read_labels(path, 4), labels)
    assert read_palette(path, 4) == lasting.predictor.palette

    save_overlay(tmp_path / "overlay.png", image, labels, lasting.predictor.classes, lasting.predictor.palette)
    np.testing.assert_array_equal(
        lasting.post(file_of(image), "output=overlay").pixels, read_image(tmp_path / "overlay.png")
    )
    gray = lasting.post(file_of(image), "output=confidence").pixels
    np.testing.assert_array_equal(gray, np.rint(confidence * 255).astype(np.uint8))


def test_json_has_everything(lasting: Server) -> None:
    image = picture(4)
    labels, confidence = lasting.predictor.with_confidence([image])[0]
    told = lasting.post(file_of(image), "output=json&picture=true").json
    assert (told["network"], told["width"], told["height"], told["batch"]) == ("coarse", 80, 60, 1)
    assert told["precision"] == "float32"
    assert sorted(told["seconds"]) == ["decode", "encode", "network", "receive", "wait"]
    (task,) = told["tasks"]
    assert task["name"] == ""
    assert task["confidence"] == pytest.approx(confidence.mean(), rel=1e-5)
    for index, each in enumerate(task["classes"]):
        own = labels == index
        assert each["name"] == lasting.predictor.classes[index]
        assert each["color"] == "#{:02x}{:02x}{:02x}".format(*lasting.predictor.palette[index])
        assert each["pixels"] == own.sum()
        assert each["share"] == pytest.approx(own.mean())
        assert each["confidence"] == (pytest.approx(confidence[own].mean(), rel=1e-5) if own.any() else None)
    shown = {name: Image.open(io.BytesIO(base64.b64decode(task[name]))) for name in ("labels", "confidence_map")}
    np.testing.assert_array_equal(np.asarray(shown["labels"]), labels)
    assert shown["confidence_map"].mode == "L"
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(told["picture"]))))
    assert abs(seen.astype(int) - image).mean() < 6
    other = lasting.post(file_of(image), "network=fine&output=json").json
    assert other["network"] == "fine"
    assert "picture" not in other
    assert other["tasks"][0]["labels"] != task["labels"]


def test_pictures_are_read_as_by_predict(lasting: Server, tmp_path: Path) -> None:
    """Turned by EXIF, 16 bits, other formats, larger than a tile."""
    turned = Image.fromarray(picture(5))
    exif = turned.getexif()
    exif[0x0112] = 6
    deep = picture(6)[:, :, 0].astype(np.uint16) * 257
    for index, content in enumerate(
        [
            file_of(turned, "JPEG", exif=exif),
            file_of(deep),
            file_of(picture(7), "TIFF"),
            file_of(Image.fromarray(picture(8)).convert("P"), "GIF"),
            file_of(picture(9, 400, 300), "WEBP"),
        ]
    ):
        path = tmp_path / f"{index}.img"
        path.write_bytes(content)
        reply = lasting.post(content)
        assert reply.status == 200, reply.body
        np.testing.assert_array_equal(reply.pixels, lasting.predictor(path))


BOMB = file_of(Image.new("1", (4000, 4000)))
TWO_PAGES = file_of(picture(), "TIFF", save_all=True, append_images=[Image.fromarray(picture(1))])
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
WRONG: list[tuple[str, Any, str, dict[str, str], int, str]] = [
    ("empty", b"", "", {}, 400, "an empty body; a picture is wanted"),
    ("text", b"root:x:0:0", "", {}, 415, "upload: no image that can be read; wanted is one of JPEG, "),
    ("postscript", EPS, "", {}, 415, "upload: no image that can be read"),
    ("form", GOOD, "", {"Content-Type": "multipart/form-data; boundary=x"}, 415, "a form; the picture itself is want"),
    ("truncated png", GOOD[:-500], "", {}, 415, "upload: cannot read image: "),
    ("truncated jpeg", JPEG[:-300], "", {}, 415, "upload: cannot read image: image file is truncated"),
    ("pages", TWO_PAGES, "", {}, 415, "upload: 2 pages, and one image is wanted"),
    ("bomb", BOMB, "", {}, 413, "upload: 16 megapixels is more than the limit"),
    ("large", bytes(300_001), "", {}, 413, r"an upload of 0\.3 MB or more; at most 0\.3 MB are taken"),
    ("endless", (bytes(50_000) for _ in range(40)), "", {}, 413, r"an upload of \S+ MB or more; at most 0\.3 MB"),
    ("network", GOOD, "network=other", {}, 422, "network must be one of coarse, fine, got 'other'"),
    ("task", GOOD, "task=semantic", {}, 422, "task must be one of , got 'semantic'"),
    ("output", GOOD, "output=xml", {}, 422, "output must be one of labels, overlay, confidence, json, got 'xml'"),
    ("picture", GOOD, "output=json&picture=yes", {}, 422, "picture must be one of false, true, got 'yes'"),
    ("parameter", GOOD, "out=json", {}, 422, "unknown parameter 'out'; there are network, task, output, picture"),
    ("host", GOOD, "", {"Host": "rebound.example"}, 403, "host 'rebound.example' is not a name of this server"),
    ("no host", GOOD, "", {"Host": "[::"}, 403, r"host '\[::' is not a name"),
    ("origin", GOOD, "", {"Origin": "http://other.example"}, 403, "a page of http://other.example may not use this"),
    ("port", GOOD, "", {"Origin": "http://127.0.0.1:1"}, 403, "a page of http://127.0.0.1:1 may not use this"),
    ("sandbox", GOOD, "", {"Origin": "null"}, 403, "a page of null may not use this"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "query", "headers", "status", "line"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG]
)
def test_what_is_wrong_is_one_line_and_the_server_goes_on(
    lasting: Server, body: Any, query: str, headers: dict[str, str], status: int, line: str
) -> None:
    count = f'fcn_responses_total{{status="{status}"}}'
    before = lasting.metric(count)
    reply = lasting.post(body, query, headers)
    assert reply.status == status
    assert list(reply.json) == ["error"]
    assert re.match(line, reply.json["error"]), reply.json
    assert "\n" not in reply.json["error"]
    assert lasting.post(GOOD).status == 200
    assert lasting.metric(count) == before + 1
    assert lasting.metric("fcn_pictures_inside") == 0


def test_names_by_which_it_may_be_asked(lasting: Server) -> None:
    for host in (
        "127.0.0.1",
        "localhost:8000",
        "LOCALHOST",
        "[::1]:80",
        "192.168.7.7",
        "photos.example",
        socket.gethostname(),
    ):
        assert lasting.get("/health", Host=host).status == 200, host
    own = lasting.url.removeprefix("http://")
    assert lasting.post(GOOD, headers={"Origin": lasting.url, "Host": own}).status == 200


def test_what_every_answer_says(lasting: Server) -> None:
    for reply in (lasting.get("/"), lasting.post(GOOD), lasting.post(b"no"), lasting.get("/nothing")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in reply.headers if name.startswith("access-control") or name == "server"]
    assert lasting.get("/nothing").json == {"error": "Not Found"}
    assert lasting.get("/predict").status == 405
    assert lasting.ask("OPTIONS", "/predict", headers={"Origin": "http://other.example"}).status == 403


def test_the_page_is_whole_and_brings_nothing_from_elsewhere(lasting: Server) -> None:
    page = lasting.get("/").body.decode()
    files = re.findall(r'(?:src|href)="([\w.]+)"', page)
    scripts = [name for name in files if name.endswith(".js")]
    assert scripts
    for name in files:
        reply = lasting.get(f"/{name}")
        assert reply.status == 200, name
        if name.endswith(".js"):
            assert reply.headers["content-type"].startswith("text/javascript")
            files += re.findall(r'from "\./([\w.]+)"', reply.body.decode())
        hosts = set(re.findall(r"https?://[\w.]+", page + reply.body.decode())) - {"http://www.w3.org"}  # a name space
        assert not hosts, name
    assert len(set(files)) > 4


def test_the_description_has_every_route(lasting: Server) -> None:
    told = lasting.get("/openapi.json").json
    assert told["openapi"].startswith("3.1")
    for path, methods in told["paths"].items():
        for method in methods:
            assert lasting.ask(method.upper(), path).status in (200, 400), path
    statuses = {str(status) for *_, status, _ in WRONG} | {"200", "408", "503"}
    assert set(told["paths"]["/predict"]["post"]["responses"]) == statuses
    properties = told["components"]["schemas"]["Labels"]["properties"]
    reply = lasting.post(GOOD, "output=json&picture=true").json
    assert set(reply) == set(properties)
    described = properties["tasks"]["items"]["properties"]
    assert set(reply["tasks"][0]) == set(described) - {"colors"}
    assert set(reply["tasks"][0]["classes"][0]) == set(described["classes"]["items"]["properties"])
    names = [each["name"] for each in told["paths"]["/predict"]["post"]["parameters"]]
    assert f"there are {', '.join(['network', 'task', 'output', 'picture'])}" in lasting.post(GOOD, "x=1").json["error"]
    assert sorted(names) == ["network", "output", "picture", "task"]


def test_metrics_count_what_happened(server: Server) -> None:
    server.post(GOOD)
    server.post(GOOD, "output=json")
    server.post(b"no")
    assert server.metric('fcn_responses_total{status="200"}') == 2
    assert server.metric('fcn_responses_total{status="415"}') == 1
    assert server.metric("fcn_pixels_total") == 2 * 60 * 80
    assert server.metric('fcn_seconds_count{part="network"}') == 2
    assert server.metric("process_resident_memory_bytes") > 1e6
    about = server.get("/networks").json
    assert [each["name"] for each in about["networks"]] == ["coarse", "fine"]
    assert about["networks"][0]["tasks"][0]["classes"][3] == {"index": 3, "name": "<b>crème</b>", "color": "#808000"}
    assert about["limits"]["upload_bytes"] == 300_000


def test_several_tasks_and_many_classes() -> None:
    several = predictor(tasks=(("semantic", 3), ("geometric", 2)), classes=5)
    many = predictor(classes=300)
    with serving({"several": several, "many": many}) as server:
        image = picture()
        for index, task in enumerate(("semantic", "geometric")):
            found = server.post(file_of(image), f"network=several&task={task}").pixels
            np.testing.assert_array_equal(found, several(image)[index])
        told = server.post(file_of(image), "network=several&output=json").json["tasks"]
        assert [(task["name"], len(task["classes"])) for task in told] == [("semantic", 3), ("geometric", 2)]
        labels = many(image)
        assert labels.dtype == np.int64
        np.testing.assert_array_equal(server.post(file_of(image), "network=many").pixels, labels)
        (task,) = server.post(file_of(image), "network=many&output=json").json["tasks"]
        colors = np.asarray(Image.open(io.BytesIO(base64.b64decode(task["colors"]))))
        np.testing.assert_array_equal(colors, np.array(many.palette, np.uint8)[labels])


def test_a_network_that_sees_more_than_colors_is_refused() -> None:
    deep = predictor()
    deep.preprocessing = type(deep.preprocessing)((0.5,) * 4, (1.0,) * 4)
    with pytest.raises(
        ValueError, match="depths: this network sees color and depth, and one picture is sent at a time"
    ):
        create_app({"depths": deep}, Limits())
