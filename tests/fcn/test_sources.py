"""What fcn predict reads: files, folders, patterns, videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn.data import Source, find_sources, read_frames
from fcn.errors import DataError


def save(path: Path, value: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path)
    return path


def write_video(path: Path, frames: list[np.ndarray]) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=5)
        stream.height, stream.width = frames[0].shape[:2]
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        video.mux(stream.encode())


def found(*arguments: Path | str) -> list[tuple[Path, str]]:
    return [(source.path, source.name) for source in find_sources([str(argument) for argument in arguments])[0]]


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    a, b, c = save(tmp_path / "a.png"), save(tmp_path / "x" / "b.png"), save(tmp_path / "x" / "deep" / "c.jpg")
    (tmp_path / "x" / "notes.txt").write_text("no image")
    assert found(a, tmp_path / "x") == [(a, "a"), (b, "b"), (c, "deep/c")]
    assert found(tmp_path / "**" / "*.*g") == [(a, "a"), (b, "x/b"), (c, "x/deep/c")]
    with pytest.raises(DataError, match=r"\*\.tif: no file matches"):
        found(tmp_path / "*.tif")
    with pytest.raises(DataError, match=r"gone\.png: no such file or folder"):
        found(tmp_path / "gone.png")
    with pytest.raises(DataError, match="would be written to the same file"):
        found(a, save(tmp_path / "y" / "a.jpg"))


def test_a_video_gives_its_frames_in_order(tmp_path: Path) -> None:
    shades = [20, 120, 220]
    write_video(tmp_path / "clip.mp4", [np.full((32, 48, 3), shade, np.uint8) for shade in shades])
    frames = list(read_frames(Source(tmp_path / "clip.mp4", "clip")))
    assert [name for name, _ in frames] == ["clip_000001", "clip_000002", "clip_000003"]
    assert all(image.shape == (32, 48, 3) and image.dtype == np.uint8 for _, image in frames)
    np.testing.assert_allclose([image.mean() for _, image in frames], shades, atol=6)
    ((name, image),) = read_frames(Source(save(tmp_path / "a.png"), "a"))
    assert name == "a"
    assert (image == 7).all()


def test_a_broken_video_is_named(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(DataError, match=r"broken\.mp4: not readable as a video"):
        list(read_frames(Source(tmp_path / "broken.mp4", "broken")))
