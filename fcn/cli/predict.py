"""label images: NAME.png, a palette PNG, and NAME_overlay.png; of several tasks NAME_TASK.png"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ._options import add_precision

if TYPE_CHECKING:
    import numpy as np

    from ..data import Further, FurtherFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights")
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


def run(options: argparse.Namespace, _: list[str]) -> int:
    import numpy as np

    from ..data import find_files, write_labels
    from ..data.tasks import underscored
    from ..evaluation.pictures import save_overlay
    from ..inference.predictor import Predictor

    predictor = Predictor(
        options.weights,
        precision=options.precision,
        compile=options.compile,
        tile=options.tile,
        batch=options.batch,
    )
    further = _further_folder(options, predictor.further)
    files = find_files(options.images)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    labeled = 0
    failed: list[Path] = []
    frames = _read(files, further, failed)
    while batch := list(islice(frames, options.batch)):
        for (name, image), labels in zip(batch, predictor([image for _, image in batch]), strict=True):
            colors = image[:, :, :3].astype(np.uint8)
            maps = labels.reshape(-1, *labels.shape[-2:])  # one for each task
            for (task, meaning), own in zip(predictor.tasks.items(), maps, strict=True):
                stem = underscored(name, task)
                write_labels(out / f"{stem}.png", own, meaning.palette)
                save_overlay(out / f"{stem}_overlay.png", colors, own, meaning.classes, meaning.palette)
            labeled += 1
    print(
        f"{len(files) - len(failed)} of {len(files)} files, {labeled} images labeled in {predictor.note}; "
        f"written to {out}"
    )
    return 1 if failed else 0


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


def _read(files: Sequence[Path], further: FurtherFolder | None, failed: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and images of all files, with a progress bar; unreadable files are named and go to ``failed``."""
    from tqdm import tqdm

    from ..data import read_frames
    from ..errors import DataError

    for path in tqdm(files, desc="predict", unit="file", dynamic_ncols=True):
        try:
            for name, image in read_frames(path):
                yield name, image if further is None else further.joined_to(image, name)
        except DataError as error:
            failed.append(path)
            tqdm.write(f"fcn predict: skipped: {error}", file=sys.stderr)
