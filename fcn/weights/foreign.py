"""What a file is that was given as weights and holds none: said by its first bytes, before anything reads it."""

from __future__ import annotations

from pathlib import Path

STARTS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself ('git lfs pull' gets it)"),
    (b"<!doctype", "a web page: the download failed, or wants a browser"),
    (b"<html", "a web page: the download failed, or wants a browser"),
    (b"<?xml", "an XML document: the download failed, or this is another file"),
    (b"{", "text (JSON), not weights: the download failed, or this is another file"),
    (b"\x89hdf\r\n", "an HDF5 file, as Keras writes them, which is not read: save its arrays as .npz"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"rar!", "a RAR archive: unpack it"),
    (b"%pdf", "a PDF document"),
    (b"\x89png", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"name:", "a Caffe prototxt, which describes a network; its weights are in the .caffemodel"),
    (b"layer", "a Caffe prototxt, which describes a network; its weights are in the .caffemodel"),
    (b"input:", "a Caffe prototxt, which describes a network; its weights are in the .caffemodel"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself ('git annex get' gets it)"),
)


def check_not_foreign(path: Path) -> None:
    """Raises ``FileNotFoundError`` for what is no file, ``ValueError`` for an empty one and for kinds of ``STARTS``."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ValueError(f"{path}: an empty file, not weights")
    plain = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kind = next((kind for mark, kind in STARTS if plain.startswith(mark)), None)
    if kind is not None:
        raise ValueError(f"{path}: not weights but {kind}")
