"""Labels for images, and scores for a labeled split."""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ..data import FURTHER, Further, ImageLike, SegmentationDataset, evaluation_loader, joined, to_array
from ..data.tasks import classes_fit, split_labels, stack_labels
from ..errors import DataError
from ..evaluation.metrics import Absent, Metrics, SegmentationMetrics
from ..networks.backbones import Modalities, Net, folded
from ..networks.graph import trace
from ..networks.models import FCN, Trunk
from ..networks.padding import ReusedPadding
from ..networks.scores import Scores
from ..weights import Weights, load_weights
from .machine import bfloat16_instructions
from .tiling import Images, Progress, Tile, Unprepared, tiled_scores

Given = ImageLike | tuple[ImageLike, ImageLike]
Precision = Literal["auto", "float32", "bfloat16"]

AGREEMENT = 0.99
"""``precision="auto"`` computes in bfloat16 only if at least this part of the first image's labels is as in float32."""


class Predictor:
    """A trained network as a function from an image of any size to its label map.

    ``weights``: a file of ``save_weights``, ``hf://user/model`` (``load_weights``), or one already loaded. ``device``:
    the GPU if there is one, unless given.
    ``tasks`` are the network's, with classes and palette of each, by name; that of a single one is empty.

    ``precision``: that of the trunk; scores and what follows are float32 always. ``"auto"`` is bfloat16 on CPUs with
    instructions for it (AMX, AVX512-BF16) if the labels of the first image agree with those of float32 (``AGREEMENT``);
    if not, a warning says so and float32 is used. ``note`` says what was chosen and why.

    ``compile``: ``torch.compile`` with weights as constants. It takes long, for each size of image anew, so it is for
    many images of few sizes; weights must not change afterwards. With ``pad="official"``, what follows from
    the padding alone is computed once for each size of image in any case (``networks/padding``).

    ``tile``: images with a longer side run through the trunk in tiles of this many pixels a side, for images larger
    than memory allows; labels are those of the whole image (``fcn.tiling``). ``batch``: so many images of one size run
    together at most.
    """

    def __init__(
        self,
        weights: str | Path | Weights,
        device: str | torch.device | None = None,
        *,
        precision: Precision = "auto",
        compile: bool = False,
        tile: int | None = None,
        batch: int = 8,
    ) -> None:
        if tile is not None and tile < 1:
            raise ValueError(f"tile must be at least 1 pixel, got {tile}")
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        if precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}")
        loaded = weights if isinstance(weights, Weights) else load_weights(weights)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = loaded.model.to(self.device).eval()
        self.classes, self.palette, self.preprocessing = loaded.classes, loaded.palette, loaded.preprocessing
        self.tasks = loaded.tasks
        self.compile, self.tile, self.batch = compile, tile, batch
        self.note = "float32"
        self._trunk: Trunk | None = None  # None: to be settled by the first image.
        if precision == "bfloat16":
            self.note = "bfloat16"
            self._trunk = inference_trunk(self.model, torch.bfloat16, compile=compile)
        elif precision == "float32" or self.device.type != "cpu" or bfloat16_instructions() is None:
            self._trunk = inference_trunk(self.model, compile=compile)

    def __repr__(self) -> str:
        return f"Predictor({self.model.config.name}, {self.note}, {self.device})"

    @overload
    def __call__(self, image: Given) -> np.ndarray: ...

    @overload
    def __call__(self, image: list[Any]) -> list[np.ndarray]: ...

    @torch.inference_mode()
    def __call__(self, image: Given | list[Any]) -> np.ndarray | list[np.ndarray]:
        """Labels ``[H, W]`` (uint8; int64 above 256 classes) at the image's own size; of several images a list.

        Of a network of several tasks ``[T, H, W]``, in the order of ``tasks``: ``semantic, geometric = ...``.

        ``image``: a path, a PIL image of any mode, or an array ``[H, W]`` or ``[H, W, 1 | 3 | 4]`` (RGB order) of
        uint8, uint16 or bool. For a network that sees depth or HHA too (``further``), a pair ``(image, depth)``, where
        depth is 16-bit millimeters, or ``(image, hha)``; or an array of all channels, as its data set gives. Images of
        a list that follow one another and have one size run together. Raises ``DataError`` for anything else, naming
        the file.
        """
        if not isinstance(image, list):
            return self._label([image])[0]
        return self._label(image)

    @torch.inference_mode()
    def with_confidence(
        self, images: list[Any], progress: Progress | None = None
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The labels of a call, and how probable each is by the softmax of the scores: float32 of the labels' shape.

        ``progress`` is given the tiles of a large image and yields them; unless given, it shows how many are done.
        """
        found = []
        for group, size in self._groups(images):
            pairs = [scores.at(size).labels(confidence=True) for scores in self._scores(group, progress).values()]
            labels, confidence = (stack_labels(each).cpu().numpy() for each in zip(*pairs, strict=True))
            found += list(zip(labels, confidence, strict=True))
        return found

    @property
    def further(self) -> Further | None:
        """What the network sees beside colors, which images of three channels or one have not."""
        return FURTHER.get(self.preprocessing.channels)

    def _channels(self, image: Given) -> np.ndarray:
        """All that the network sees of an image."""
        channels = self.preprocessing.channels
        if isinstance(image, tuple):
            if self.further is None or len(image) != 2:
                raise DataError(
                    f"a tuple is an image and what is beside it (several images are a list), and this network sees "
                    f"{channels} channels; got a tuple of {len(image)}"
                )
            return joined(*image, self.further)
        if channels <= 3:
            return to_array(image)
        if isinstance(image, np.ndarray) and image.shape[2:] == (channels,):
            return image
        pair = f"a pair (image, {self.further}) or " if self.further else ""
        raise DataError(f"this network sees {channels} channels: {pair}an array [H, W, {channels}] is wanted")

    def _label(self, images: Sequence[Given]) -> list[np.ndarray]:
        return [labels for group, size in self._groups(images) for labels in self._labels(group, size).cpu().numpy()]

    def _groups(self, images: Sequence[Given]) -> Iterator[tuple[Unprepared, tuple[int, int]]]:
        """At most ``batch`` images that follow one another and have one size, as they are seen; and that size."""
        for start in range(0, len(images), self.batch):
            pixels = [self._channels(image) for image in images[start : start + self.batch]]
            for (height, width), group in itertools.groupby(pixels, key=lambda x: x.shape[:2]):
                seen = [*map(self.preprocessing.reduced, group)]
                yield Unprepared(seen, self.preprocessing, self.device), (height, width)

    def evaluate(
        self,
        dataset: SegmentationDataset,
        *,
        trimap: Sequence[int] = (),
        absent: Absent = "exclude",
        workers: int = 0,
        progress: bool = True,
    ) -> Metrics:
        """One confusion matrix over the whole data set, each image at its own size.

        ``trimap``: widths in pixels of bands along the boundaries, whose mean IU is wanted too. ``absent``: what
        classes count that no image shows (``metrics_from_confusion``). Raises ``DataError`` if the data set's classes
        are not those of the weights, ``ValueError`` for a network of several tasks.
        """
        if "" not in self.tasks:
            raise ValueError(f"there are metrics for each of the tasks {', '.join(self.tasks)}: see evaluate_tasks")
        return self.evaluate_tasks(dataset, trimap=trimap, absent=absent, workers=workers, progress=progress)[""]

    @torch.inference_mode()
    def evaluate_tasks(
        self,
        dataset: SegmentationDataset,
        *,
        trimap: Sequence[int] = (),
        absent: Absent = "exclude",
        workers: int = 0,
        progress: bool = True,
    ) -> dict[str, Metrics]:
        """``evaluate`` of each of ``tasks``. Those of the data set must be the same in order and classes."""
        given, own = ([task.classes for task in each.tasks.values()] for each in (dataset, self))
        if len(given) != len(own) or not all(map(classes_fit, given, own)):
            raise DataError(
                f"the data have classes {_listed(given)}; the weights were trained for {_listed(own)} "
                "(in a folder of data, classes.txt names them)"
            )
        metrics = {
            name: SegmentationMetrics(len(task.classes), dataset.ignore_index, absent, trimap).to(self.device)
            for name, task in self.tasks.items()
        }
        loader = evaluation_loader(dataset, self.preprocessing, workers=workers)
        for batch in tqdm(loader, desc="evaluate", unit="image", disable=not progress, dynamic_ncols=True):
            for group in batch:
                targets = group["target"].to(self.device)
                labels = self._labels(group["image"].to(self.device), (targets.shape[-2], targets.shape[-1]))
                for metric, found, target in zip(
                    metrics.values(), split_labels(labels), split_labels(targets), strict=True
                ):
                    metric.update(found, target)
        return {name: metric.compute() for name, metric in metrics.items()}

    def _labels(self, images: Images, size: tuple[int, int]) -> Tensor:
        """``[N(, T), H, W]`` of ``size``."""
        return _labels_of(self._scores(images), size)

    def _scores(self, images: Images, progress: Progress | None = None) -> Mapping[str, Scores]:
        tile = self.tile if self.tile is not None and max(images.shape[2:]) > self.tile else None
        if self._trunk is None:
            # Of a large image the first tile settles it.
            self._trunk = self._settle(images[:, :, :tile, :tile])
        if tile is None:
            return self.model.task_scores(images[:, :, :, :], self._trunk)
        return tiled_scores(self.model, images, tile, self._trunk, progress or _progress)

    def _settle(self, images: Tensor) -> Trunk:
        """bfloat16 if that gives these images the labels of float32."""
        size = (images.shape[2], images.shape[3])
        exact = _labels_of(self.model.task_scores(images), size)
        trunk = inference_trunk(self.model, torch.bfloat16, compile=self.compile)
        agreement = float((_labels_of(self.model.task_scores(images, trunk), size) == exact).double().mean())
        found = f"labels of the first image: {agreement:.2%} as in float32"
        if agreement >= AGREEMENT:
            self.note = f"bfloat16 ({found})"
            return trunk
        self.note = f"float32, not bfloat16 ({found}, wanted {AGREEMENT:.0%})"
        warnings.warn(f"Predictor computes in {self.note}", stacklevel=4)
        return inference_trunk(self.model, compile=self.compile)


def _labels_of(scores: Mapping[str, Scores], size: tuple[int, int]) -> Tensor:
    return stack_labels([task.at(size).labels() for task in scores.values()])


def _listed(tasks: Sequence[Sequence[str]]) -> str:
    return " / ".join(", ".join(classes) for classes in tasks)


def _progress(tiles: list[Tile]) -> Iterator[Tile]:
    yield from tqdm(tiles, desc="tiles", unit="tile", leave=False, disable=len(tiles) < 4, dynamic_ncols=True)


def inference_trunk(
    model: FCN, dtype: torch.dtype = torch.float32, *, reuse_padding: bool = True, compile: bool = False
) -> Trunk:
    """The maps of ``model.backbone``, computed as fast as that goes; for ``model.scores(images, trunk)``.

    Weights go to channels_last, in place unless ``dtype`` is not theirs; batch normalizations go into them. Maps are
    cast to the dtype of the head.
    """
    finish: Callable[[nn.Module], Callable[..., Any]] = frozen if compile else lambda net: net
    padded = model.config.pad == "official" and model.config.architecture.official_padding is not None

    def prepared(net: nn.Module) -> Callable[..., Any]:
        if any(p.dtype != dtype for p in net.parameters()):
            net = _with_float32_norms(copy.deepcopy(net).to(dtype))
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Each compiled network has weights of its own.
        return ReusedPadding(net, finish, sizes_kept=2 if compile else 8) if reuse_padding and padded else finish(net)

    runs = [prepared(folded(net) if isinstance(net, Net) else net) for net in model.trunks.values()]
    backbone = model.backbone
    run = functools.partial(backbone.joined, runs) if isinstance(backbone, Modalities) else runs[0]

    def trunk(images: Tensor) -> Mapping[str, Tensor]:
        wanted = next(model.head.parameters()).dtype
        return {name: x.to(wanted) for name, x in run(images.to(dtype)).items()}

    return trunk


def _with_float32_norms(net: nn.Module) -> nn.Module:
    """PyTorch's local response normalization has no half precision on CPUs."""
    traced = trace(net)
    norms = [node for node in traced.graph.nodes if node.target is F.local_response_norm]
    for node in norms:
        x = node.all_input_nodes[0]
        with traced.graph.inserting_before(node):
            node.replace_input_with(x, traced.graph.call_method("to", (x, torch.float32)))
        with traced.graph.inserting_after(node):
            back = traced.graph.call_method("type_as", (node, x))
        node.replace_all_uses_with(back, delete_user_cb=lambda user, back=back: user is not back)
    traced.recompile()
    return traced if norms else net


def frozen(net: nn.Module) -> Callable[..., Any]:
    """``net`` compiled with its weights as constants, laid out as its convolutions want them."""
    return torch.compile(net, options={"freezing": True})
