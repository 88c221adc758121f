"""``fcn serve``: what it answers to good, wrong, broken and too many requests, as a real server on this machine."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fcn.cli import main
from fcn.cli.serve import listening, names_of, say_where
from fcn.data import read_labels
from fcn.data.files import RESULT_MARK, read_image
from fcn.data.labels import read_palette
from fcn.evaluation.overlays import save_overlay
from fcn.inference.predictor import Predictor
from fcn.weights import save_weights
from tests.fcn.networks import random_model

for package in ("prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(package, reason=f"{package} is not installed (the extra serve)")

from fcn.serving.app import create_app  # noqa: E402
from fcn.serving.limits import Limits  # noqa: E402
from fcn.serving.worker import Worker  # noqa: E402
from tests.fcn.serving import Server, file_of, picture, predictor, serving, until  # noqa: E402

LIMITS = Limits(queue=6, upload_bytes=300_000, megapixels=0.5, transfer_seconds=0.5)
GOOD = file_of(picture())
JPEG = file_of(picture(), "JPEG")


@pytest.fixture(scope="module", autouse=True)
def _pillow_as_before() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        yield
    Image.MAX_IMAGE_PIXELS = before


def started() -> AbstractContextManager[Server]:
    return serving({"coarse": predictor(), "fine": predictor(1)}, LIMITS, ["photos.example"])


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


class Held:
    """A network that waits to be let go."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.batches = threading.Event(), []
        run = server.predictor.with_confidence

        def held(images: list[np.ndarray], progress: Any) -> Any:
            self.batches.append(len(images))
            assert self.go.wait(20)
            return run(images, progress)

        monkeypatch.setattr(server.predictor, "with_confidence", held)


def test_one_more_than_fits_is_told_when_to_come_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(server, monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(server.post, GOOD) for _ in range(LIMITS.queue)]
        until(lambda: server.metric("fcn_pictures_inside") == LIMITS.queue)
        refused = server.post(GOOD)
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["error"].startswith("6 pictures are being worked on")
        assert server.get("/health").status == 200
        held.go.set()
        assert [each.result().status for each in waiting] == [200] * LIMITS.queue
    assert server.post(GOOD).status == 200


def test_what_waits_and_has_one_size_runs_together(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture(seed, 60, 80 if seed % 2 else 50) for seed in range(6)]
    alone = [server.predictor(image) for image in images]
    held = Held(server, monkeypatch)
    with ThreadPoolExecutor(8) as pool:
        replies = []
        for index, image in enumerate(images):  # in this order
            replies.append(pool.submit(server.post, file_of(image)))
            until(lambda index=index: server.metric('fcn_seconds_count{part="decode"}') == index + 1)
            until(lambda: held.batches)
        held.go.set()
        for reply, labels in zip(replies, alone, strict=True):
            np.testing.assert_array_equal(reply.result().pixels, labels)
    assert held.batches == [1, 3, 2]  # the first; those of the second's size; the rest of the first's
    assert server.metric("fcn_batch_sum") == 1 + 3 * 3 + 2 * 2


def test_who_goes_leaves_the_queue(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(server, monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(server.post, GOOD)
        until(lambda: held.batches)
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/predict", GOOD)
        until(lambda: server.metric("fcn_pictures_inside") == 2)
        until(lambda: server.metric('fcn_seconds_count{part="decode"}') == 2)
        connection.close()
        until(lambda: server.metric("fcn_pictures_inside") == 1)
        held.go.set()
        assert first.result().status == 200
    assert server.post(GOOD).status == 200
    assert held.batches == [1, 1]


def test_small_pictures_pass_a_large_one(server: Server) -> None:
    network = server.predictor
    large, small = picture(0, 900, 900), picture(1)  # tiles are of 256
    worker = Worker({"": network})
    first = worker.submit("", large)
    until(lambda: first.running())
    second = worker.submit("", small)
    np.testing.assert_array_equal(second.result(20).labels, network(small))
    assert not first.done()
    np.testing.assert_array_equal(first.result(60).labels, network(large))
    worker.close()


def test_a_cancelled_job_keeps_no_image(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(server, monkeypatch)
    worker = Worker({"coarse": server.predictor})
    first = worker.submit("coarse", picture())
    until(lambda: held.batches)
    image = picture(1).copy()
    gone = weakref.ref(image)
    future = worker.submit("coarse", image)
    del image
    assert gone() is not None
    assert future.cancel()
    assert gone() is None
    held.go.set()
    assert first.result(20).labels.shape == (60, 80)
    large = worker.submit("coarse", picture(0, 2000, 2000))  # in tiles of 256
    until(lambda: len(held.batches) == 2)
    worker.close()
    with pytest.raises(RuntimeError, match="the server is ending"):
        large.result(0)
    with pytest.raises(RuntimeError, match="the server is ending"):
        worker.submit("coarse", picture())


def test_an_upload_that_does_not_arrive(server: Server) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as half:
        half.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        assert half.recv(4096).startswith(b"HTTP/1.1 408 ")
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as gone:
        gone.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        until(lambda: server.metric("fcn_pictures_inside") == 1)
    until(lambda: server.metric("fcn_pictures_inside") == 0)
    assert server.post(GOOD).status == 200


def test_an_answer_that_is_not_taken() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1200, 3)).astype(np.uint8)
    body = file_of(noise, "JPEG")
    network = predictor()
    network.tile = None
    head = f"POST /predict?output=overlay HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving({"": network}, Limits(transfer_seconds=2)) as server, socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", server.port))
        idle.sendall(head.encode() + body)
        until(lambda: server.metric('fcn_seconds_count{part="encode"}') == 1)
        assert server.metric("fcn_pictures_inside") == 1
        until(lambda: server.metric("fcn_pictures_inside") == 0)
        assert server.post(GOOD).status == 200


def test_a_network_that_fails(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture that does not fit memory fails alone; what nobody foresaw is a 500, and the server goes on."""
    run = server.predictor.with_confidence
    calls = []

    def failing(images: list[np.ndarray], progress: Any) -> Any:
        calls.append(len(images))
        if len(images) > 1 or images[0][0, 0, 0] == 1:
            raise MemoryError
        if images[0][0, 0, 0] == 2:
            raise RuntimeError("surprise\nof several lines")
        if images[0][0, 0, 0] == 3:
            raise ValueError("a picture of 60 x 80 is too small")
        time.sleep(0.3)  # so that the next wait
        return run(images, progress)

    monkeypatch.setattr(server.predictor, "with_confidence", failing)
    images = [picture(seed).copy() for seed in range(5)]
    for first, image in zip((0, 1, 2, 3, 0), images, strict=True):
        image[0, 0, 0] = first
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.post, file_of(images[0]))
        until(lambda: calls)
        replies = [first, *(pool.submit(server.post, file_of(image)) for image in images[1:])]
        got = [reply.result() for reply in replies]
    assert [reply.status for reply in got] == [200, 413, 500, 422, 200]
    assert got[1].json == {"error": "upload: 80 x 60 pixels do not fit memory"}
    assert got[2].json == {"error": "unexpected RuntimeError; the server's log says where"}
    assert got[3].json == {"error": "upload: a picture of 60 x 80 is too small"}
    np.testing.assert_array_equal(got[4].pixels, run([images[4]])[0][0])


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


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    told = predictor()
    save_weights(
        path, random_model("small", stride=8, classes=4), classes=told.classes, palette=told.palette,
        preprocessing=told.preprocessing,
    )  # fmt: skip
    return path


def test_the_command_says_where_and_ends_cleanly(weights: Path) -> None:
    command = [sys.executable, "-m", "fcn", "serve", str(weights), str(weights), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(
                r"fcn serve: http://127\.0\.0\.1:(\d+) \(this machine alone can reach it; Ctrl-C ends it\)\n", line
            )
            assert found, line
            server = Server(int(found[1]), Predictor(weights, "cpu"))
            np.testing.assert_array_equal(server.post(GOOD).pixels, server.predictor(picture()))
            folder = weights.parent.name
            names = [each["name"] for each in server.get("/networks").json["networks"]]
            assert names == [f"{folder}/best", f"{folder}/best (1)"]
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, rest, errors) == (0, "", "fcn serve: stopped\n")


def test_other_machines_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    with listening("0.0.0.0", 0) as listener:
        say_where(listener)
        number = listener.getsockname()[1]
    told = capsys.readouterr()
    assert told.out == f"fcn serve: http://0.0.0.0:{number} (other machines can reach it; Ctrl-C ends it)\n"
    assert told.err == "fcn serve: warning: whoever reaches it can use it: no password, no encryption\n"


def test_wrong_usage_is_one_line(
    weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        assert main(["serve", str(weights), "--port", str(number)]) == 2
    expected = f"fcn serve: port {number} of 127.0.0.1 is in use; --port takes another, --port 0 any free one\n"
    assert capsys.readouterr().err == expected
    assert main(["serve", str(weights), "--port", "0", "--host", "no.such.host.invalid"]) == 2
    assert re.fullmatch(r"fcn serve: cannot listen at no.such.host.invalid, port 0: .+\n", capsys.readouterr().err)
    assert main(["serve", "missing.safetensors", "--port", "0"]) == 2
    assert "missing.safetensors" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", str(weights), "--port", "70000"])
    assert "argument --port: must be a whole number from 0 to 65535, got 70000" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(weights)]) == 2
    assert capsys.readouterr().err == "fcn serve: uvicorn is not installed: pip install 'fcn-kernels[serve]'\n"


def test_names_of_networks() -> None:
    assert names_of([Path("a/32s.safetensors"), Path("b/8s.safetensors")]) == ["32s", "8s"]
    assert names_of([Path("a/best.safetensors"), Path("b/best.safetensors")]) == ["a/best", "b/best"]
