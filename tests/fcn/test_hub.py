"""Weights on the Hugging Face Hub, against a small server that answers as it does."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fcn
from fcn.cli import main
from fcn.data.preprocessing import IMAGENET
from fcn.errors import DataError
from fcn.weights import load_weights, save_weights
from tests.fcn.networks import random_model

huggingface_hub = pytest.importorskip("huggingface_hub")

CLASSES = ["ground", "square", "disk"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories as files by name; every write with the right token is taken."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        files = self.server.repositories.get(repository)
        if files is None:
            self.reply(404, X_Error_Code="RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.reply(404, X_Error_Code="RevisionNotFound")
        elif name not in files:
            self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        else:
            content = files[name]
            self.reply(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: dict[str, Any] = {}
        if self.headers.get("Authorization") != "Bearer hf_right" and "validate" not in self.path:
            return self.reply(401, b"{}")
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            repository = f"{wanted['organization']}/{wanted['name']}"
            self.server.private.setdefault(repository, wanted.get("private") or wanted.get("visibility") == "private")
            if repository in self.server.repositories:
                return self.reply(409, json.dumps({"url": f"{self.server.address}/{repository}"}).encode())
            self.server.repositories[repository] = {}
            answer = {"url": f"{self.server.address}/{repository}"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer["files"] = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
        elif "/commit/" in self.path:
            repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[repository][line["value"]["path"]] = content
            address = f"{self.server.address}/{repository}/commit/{COMMIT}"
            answer = {"success": True, "commitUrl": address, "commitOid": COMMIT}
        return self.reply(200, json.dumps(answer).encode(), Content_Type="application/json")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    for name, value in (
        ("ENDPOINT", server.address),
        ("HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"),
        ("HF_HUB_CACHE", str(tmp_path / "cache")),
    ):  # what HF_ENDPOINT and HF_HOME set before the library is imported
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    model = random_model("small", seed=2, stride=32)
    palette = [(0, 0, 0), (200, 30, 30), (30, 60, 220)]
    save_weights(path, model, classes=CLASSES, palette=palette, preprocessing=IMAGENET, extra={"epoch": "7"})
    return path


def test_what_is_pushed_is_what_a_predictor_reads(
    hub: Hub, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"data": "folder", "split": "test", "images": 3, "class_iu": {}}
    metrics |= {"pixel_accuracy": 0.9, "mean_accuracy": 0.8, "mean_iu": 0.7123, "frequency_weighted_iu": None}
    (tmp_path / "m.json").write_text(json.dumps(metrics))
    more = ["--license", "cc-by-4.0", "--data", "Colored shapes.", "--metrics", str(tmp_path / "m.json"), "--private"]
    assert main(["push", str(weights), "me/shapes", *more]) == 0
    assert capsys.readouterr().out == f"Written: {hub.address}/me/shapes/commit/{COMMIT}\n"
    assert hub.private["me/shapes"]
    assert hub.repositories["me/shapes"]["model.safetensors"] == weights.read_bytes()

    card = huggingface_hub.ModelCard(hub.repositories["me/shapes"]["README.md"].decode())
    assert (card.data.license, card.data.pipeline_tag) == ("cc-by-4.0", "image-segmentation")
    found = {result.metric_type: (result.metric_value, result.dataset_split) for result in card.data.eval_results}
    assert found == {"pixel_accuracy": (0.9, "test"), "mean_accuracy": (0.8, "test"), "mean_iu": (0.7123, "test")}
    for text in ("2 `disk`", "| 90.0 | 80.0 | 71.2 | - |", "Colored shapes.", "- epoch: 7", '"hf://me/shapes"'):
        assert text in card.text

    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    expected = fcn.Predictor(weights, "cpu", precision="float32")(image)
    for address in ("hf://me/shapes", f"hf://me/shapes@{COMMIT}"):
        predictor = fcn.Predictor(address, "cpu", precision="float32")
        assert predictor.classes == CLASSES
        np.testing.assert_array_equal(predictor(image), expected)
    hub.repositories.clear()
    assert load_weights(f"hf://me/shapes@{COMMIT}").extra == {
        "epoch": "7"
    }  # a revision stays the same: the cache has it


def test_a_card_that_is_there_stays_unless_asked(hub: Hub, weights: Path) -> None:
    hub.repositories["me/shapes"] = {"README.md": b"my own words", "model.safetensors": b"older"}
    assert main(["push", str(weights), "me/shapes"]) == 0
    assert hub.repositories["me/shapes"] == {"README.md": b"my own words", "model.safetensors": weights.read_bytes()}
    assert main(["push", str(weights), "me/shapes", "--replace-card"]) == 0
    card = hub.repositories["me/shapes"]["README.md"].decode()
    assert "Not said: ask before you use these weights." in card
    assert "model-index" not in card


def test_what_cannot_be_had_or_put_is_one_line(
    hub: Hub, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["me/empty"] = {}
    hub.repositories["me/pickle"] = {"model.safetensors": b"\x80\x04N."}
    for address, why in (
        ("hf://me/absent", "there is no such repository on the Hub"),
        ("hf://me/empty", "the repository has no model.safetensors"),
        ("hf://me/empty@v2", "the repository has no such revision"),
        ("hf://shapes", "a repository is user/model, got 'shapes'"),
    ):
        with pytest.raises(DataError, match=f"^{address}: {why}"):
            load_weights(address)
    with pytest.raises(ValueError, match=r"model\.safetensors: "):  # nothing is unpickled
        load_weights("hf://me/pickle")

    (tmp_path / "m.json").write_text('{"mean_iu": 0.5}')
    for arguments, why in (
        (["push", str(weights), "me/x", "--metrics", str(tmp_path / "m.json")], "no file of 'fcn evaluate --out'"),
        (["push", "hf://me/empty", "me/x"], "hf://me/empty: a file on this machine is wanted"),
        (["push", str(weights), "x"], "x: a repository is user/model, got 'x'"),
        (["push", str(tmp_path / "absent.safetensors"), "me/x"], "absent.safetensors"),
        (["export", "hf://me/x", "--to", "onnx"], "hf://me/x: say where the file shall be: --out FILE.onnx"),
    ):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["push", str(weights), "me/x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fcn push: me/x: ")
    assert "me/x" not in hub.repositories
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")  # where nothing answers
    assert main(["push", str(weights), "me/x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fcn push: me/x: ")
    assert "refused" in line

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    assert main(["predict", "hf://me/x", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    needs = "this needs huggingface_hub, which is not installed: pip install -e '.[hub]'\n"
    assert capsys.readouterr().err == f"fcn predict: {needs}"
