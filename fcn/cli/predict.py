"""label images: NAME.png, a palette PNG, and NAME_overlay.png; of several tasks NAME_TASK.png
Images in subfolders of a folder or below a pattern keep their subfolders in the results. Results of an earlier run are
replaced; any other file is left as it is, and one whose place a result would take is an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ._options import add_max_megapixels, add_precision
from ._results import Results

if TYPE_CHECKING:
    import numpy as np

    from ..data import Further, FurtherFolder, Source
    from ..export.session import OnnxPredictor
    from ..inference.predictor import Predictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", help="a run folder, a .safetensors file, or an .onnx file of 'fcn export'")
    parser.add_argument("images", nargs="+", help="images, videos, folders of them, or patterns such as 'a/**/*.png'")
    parser.add_argument("--out", required=True, metavar="DIR")
    beside = parser.add_mutually_exclusive_group()
    for kind, form in (("depth", "16-bit millimeters"), ("hha", "colors")):
        text = f"for networks of color and {kind}: a folder of {kind} images ({form}), of the same stem as their images"
        beside.add_argument(f"--{kind}", metavar="FOLDER", help=text)
    add_precision(parser, default="auto")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the network anew for each size of image; weights are baked in",
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="so many images of one size at a time")
    parser.add_argument(
        "--tile", type=int, metavar="N", help="run larger images in tiles of N x N pixels; the labels stay the same"
    )
    parser.add_argument("--no-overlay", dest="overlay", action="store_false", help="write label maps alone")
    add_max_megapixels(parser)


def run(options: argparse.Namespace, _: list[str]) -> int:
    from ..data import find_sources
    from ..data.opening import allow_megapixels
    from ..weights import weights_file

    allow_megapixels(options.max_megapixels)
    options.weights = weights_file(options.weights)
    predictor = _predictor(options)
    further = _further_folder(options, predictor.further)
    sources, notes = find_sources(options.images)
    results = Results(Path(options.out), predictor.tasks, predictor.preprocessing.levels, options.overlay)
    results.check(sources, [options.weights, *(further.files.values() if further else ())])
    for note in notes:
        print(f"fcn predict: {note}", file=sys.stderr)
    labeled = 0
    failed: set[Path] = set()
    frames = _read(sources, further, predictor, failed)
    while batch := list(islice(frames, options.batch)):
        for frame, labels in _labels(batch, predictor, failed):
            try:
                results.write(frame.name, frame.image, labels)
                labeled += 1
            except MemoryError:
                _skip(frame.path, "its results do not fit memory; --no-overlay needs less", failed)
    print(
        f"{len(sources) - len(failed)} of {len(sources)} files, {labeled} images labeled in {predictor.note}; "
        f"written to {options.out}"
    )
    return 1 if failed else 0


def _predictor(options: argparse.Namespace) -> Predictor | OnnxPredictor:
    from ..export.session import OnnxPredictor
    from ..inference.predictor import Predictor

    if options.weights.suffix != ".onnx":
        return Predictor(
            options.weights,
            precision=options.precision,
            compile=options.compile,
            tile=options.tile,
            batch=options.batch,
        )
    for name, given in (
        ("--precision bfloat16", options.precision == "bfloat16"),
        ("--compile", options.compile),
        ("--tile", options.tile is not None),
    ):
        if given:
            raise ValueError(f"{options.weights}: {name} is for weights of this program, not for an exported graph")
    return OnnxPredictor(options.weights)


class Frame(NamedTuple):
    """An image, the file that it is from, and the name of its results."""

    path: Path
    name: str
    image: np.ndarray


def _further_folder(options: argparse.Namespace, kind: Further | None) -> FurtherFolder | None:
    """What ``--depth`` or ``--hha`` gives, if that is what the network sees."""
    from ..data import FurtherFolder

    given = {"depth": options.depth, "hha": options.hha}
    if kind is not None and given[kind] is None:
        raise ValueError(f"{options.weights}: this network sees color and {kind}; say where that is: --{kind} FOLDER")
    wrong = [name for name, folder in given.items() if folder is not None and name != kind]
    if wrong:
        raise ValueError(f"{options.weights}: this network sees no images beside those it labels: no --{wrong[0]}")
    return None if kind is None else FurtherFolder(Path(given[kind]), kind)


def _read(
    sources: Sequence[Source], further: FurtherFolder | None, predictor: Predictor | OnnxPredictor, failed: set[Path]
) -> Iterator[Frame]:
    """Images of all files, with a progress bar; unreadable files are named and go to ``failed``."""
    from tqdm import tqdm

    from ..data import read_frames
    from ..data.opening import left_out
    from ..errors import DataError

    for source in tqdm(sources, desc="predict", unit="file", dynamic_ncols=True):
        path = source.path
        try:
            note = None if source.is_video else left_out(path)
            if note:
                _say(note)
            for name, image in read_frames(source):
                note = _lost_contrast(image, predictor)
                if note:
                    _say(f"{path}: {note}")
                yield Frame(path, name, image if further is None else further.joined_to(image, Path(name).name))
        except DataError as error:
            failed.add(path)
            _say(f"skipped: {error}")
        except MemoryError:
            _skip(path, "it does not fit memory; cut it into pieces", failed)


def _labels(
    batch: Sequence[Frame], predictor: Predictor | OnnxPredictor, failed: set[Path]
) -> Iterator[tuple[Frame, np.ndarray]]:
    """Images with their labels; those that do not fit memory, even alone, are named and go to ``failed``."""
    try:
        found = predictor([frame.image for frame in batch])
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        if len(batch) > 1:
            for frame in batch:
                yield from _labels([frame], predictor, failed)
            return
        height, width = batch[0].image.shape[:2]
        way_out = f"a smaller --tile than {predictor.tile}" if predictor.tile else "--tile 512"
        _skip(batch[0].path, f"{width} x {height} pixels do not fit memory; {way_out} needs less", failed)
        return
    yield from zip(batch, found, strict=True)


def _out_of_memory(error: Exception) -> bool:
    import torch

    text = str(error)
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        sign in text for sign in ("allocate memory", "not enough memory", "out of memory", "could not create a memory")
    )


def _lost_contrast(image: np.ndarray, predictor: Predictor | OnnxPredictor, enough: int = 64) -> str | None:
    """What becomes of a 16-bit image where the network was trained on 8-bit ones, if few shades are left."""
    import numpy as np

    from ..data.files import eight_bits

    if image.dtype != np.uint16 or predictor.preprocessing.levels is not None:
        return None
    ends = np.array([image.min(), image.max()])
    low, high = (int(value) for value in eight_bits(ends))
    if high - low >= enough or ends[0] == ends[1]:
        return None
    return (
        f"16 bits, of which this network, trained on 8, sees the upper ones: values {ends[0]} to {ends[1]} become "
        f"{low} to {high}; scale them to 8 bits as the training images were"
    )


def _skip(path: Path, why: str, failed: set[Path]) -> None:
    failed.add(path)
    _say(f"skipped: {path}: {why}")


def _say(text: str) -> None:
    """A line beside the progress bar."""
    from tqdm import tqdm

    tqdm.write(f"fcn predict: {text}", file=sys.stderr)
