"""Networks from the weights of other programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from fcn_kernels import bilinear_kernel

from ..data import voc_palette
from ..data.nyud import NYUD_CLASSES
from ..data.nyud import PUBLISHED as NYUD_PUBLISHED
from ..data.preprocessing import CAFFE_VGG, Preprocessing
from ..data.siftflow import PUBLISHED as SIFTFLOW_PUBLISHED
from ..data.siftflow import TASKS as SIFTFLOW_TASKS
from ..data.voc import VOC_CLASSES
from ..networks.backbones import Net
from ..networks.heads import Filter
from ..networks.models import AT_ONCE_SCALES, FCN, ModelConfig, build_model
from .files import Weights
from .layouts import suffixes
from .sources import Source, read_source
from .tensors import Tensors, check_tensors

FILTERS: tuple[Filter, ...] = ("fixed", "diagonal", "dense")
"""From the special to the general."""
PUBLISHED_TASKS = {"sem": "semantic", "geo": "geometric"}
"""Tasks of SIFT Flow by the suffixes of their layers."""
SCALES = {16: "scale_pool4", 8: "scale_pool3"}
"""Caffe's layers that scale the skips of these strides."""


def convert(
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    at_once: bool | None = None,
    pad: str | None = None,
    mean: Sequence[float] | None = None,
    order: Literal["rgb", "bgr"] | None = None,
) -> Weights:
    """The network in a ``.pth``, ``.caffemodel``, ``.npz`` or ``.safetensors`` file of another program.

    An FCN becomes the same FCN; a classifier becomes FCN-32s that scores the classifier's classes at every place.
    Transposed convolutions from every class to every class that are diagonal become diagonal, and fixed where they are
    bilinear. The names of layers tell which network it is.

    Args:
        classes: names of the classes, of several tasks in a row; by default those of PASCAL VOC for 21, those of NYUDv2
            for 40, those of SIFT Flow for its two tasks, numbers otherwise.
        at_once: whether an FCN-8s was trained at once, with scaled skips, where the file does not say: the tensors of
            both kinds have the same names and shapes, and either gives wrong scores as the other.
        pad: ``"official"`` or ``"same"``; by default official for an FCN, same for a classifier.
        mean: of the images' channels in the network's order, where it is not that of these data sets (NYUDv2: by the
            number of channels, and HHA alone by the file's name) or of the published classifiers.
        order: of the first three channels, where it is not theirs (Caffe: blue, green, red; the authors' network on HHA
            alone: as stored, ``"rgb"``).

    Raises ``FileNotFoundError``, or ``ValueError`` naming the file and every tensor that does not fit.
    """
    source = read_source(Path(path))
    config, tensors = _network(source, at_once, pad)
    with torch.device("meta"):
        model = build_model(config)
    check_tensors(source.path, tensors, model.state_dict())
    model.load_state_dict(tensors, assign=True)
    published = _published_data(source, config)
    channels = config.in_channels * max(1, len(config.modalities))
    preprocessing = _preprocessing(source.path, published.preprocessing, channels, mean)
    if order is not None:
        preprocessing = replace(preprocessing, channel_order=order)
    classes = published.classes if classes is None else classes
    if len(classes) != config.classes:
        raise ValueError(f"{path}: the network has {config.classes} classes, but {len(classes)} names are given")
    extra = {"converted_from": source.path.name}
    if source.published is not None:
        extra["checksum"] = f"that of the published {source.published.name}"
    palette = [color for count in config.task_classes.values() for color in voc_palette(count)]
    return Weights(model.eval(), list(classes), palette, preprocessing, extra)


@dataclass(frozen=True)
class _Data:
    """What a network's images and scores are."""

    classes: Sequence[str]
    preprocessing: Preprocessing


def _published_data(source: Source, config: ModelConfig) -> _Data:
    """Those of the data set that such a network of the authors is for; else numbers, and colors as for classifiers."""
    if config.task_classes == {task: len(classes) for task, classes in SIFTFLOW_TASKS.items()}:
        names = [name for task in config.task_classes for name in SIFTFLOW_TASKS[task]]
        return _Data(names, SIFTFLOW_PUBLISHED)
    if config.classes == len(NYUD_CLASSES) and source.preprocessing == CAFFE_VGG and not source.is_classifier:
        alone = "hha" if "hha" in source.path.name.lower() else "color"
        given = {4: "color_depth", 6: "color_hha"}.get(config.in_channels * max(1, len(config.modalities)), alone)
        return _Data(NYUD_CLASSES, NYUD_PUBLISHED[given])
    names = VOC_CLASSES if config.classes == len(VOC_CLASSES) else [str(number) for number in range(config.classes)]
    return _Data(names, source.preprocessing)


def fitted(tensor: Tensor, wanted: Tensor | None) -> Tensor:
    """A fully connected layer's weights as those of a convolution: (out, in * k * k) is channels, rows, columns."""
    if wanted is not None and tensor.dim() < wanted.dim() and tensor.numel() == wanted.numel():
        return tensor.reshape(wanted.shape)
    return tensor


def _network(source: Source, at_once: bool | None, pad: str | None) -> tuple[ModelConfig, Tensors]:
    """The configuration that a file's tensors are of, and they by the names of its state dict."""
    given = dict(source.tensors)
    layers = [layer for layer in source.architecture.layers if layer.kind in ("conv", "linear")]
    first, class_scores = layers[0].name, layers[-1].name
    if source.is_classifier:
        for part in ("weight", "bias"):
            if f"{class_scores}.{part}" in given:
                given[f"score_fr.{part}"] = given.pop(f"{class_scores}.{part}")
    weights = [name.removesuffix(".weight") for name in given if name.endswith(".weight")]
    weights = [name for name in weights if name == first or name not in source.architecture.parameters]
    modalities = tuple(suffixes(weights, first))
    if modalities == ("",):
        modalities = ()
    tasks = [suffix for suffix in suffixes(weights, "score_fr") if suffix not in (*modalities, "")]

    config = ModelConfig(source.backbone, 8, pad=pad or ("same" if source.is_classifier else "official"))
    with torch.device("meta"):
        whole = build_model(config)
    names = [stream.score for stream in whole.head.streams]
    while len(names) > 1 and not any(weight.startswith(names[-1]) for weight in weights):
        names.pop()
    stride = {1: 32, 2: 16, 3: 8}[len(names)]
    scores, sizes = _scores(given, names, modalities, tasks)
    config = replace(
        config,
        stride=stride,
        classes=sum(sizes) or 2,
        in_channels=_in_channels(given, f"{first}{modalities[0] if modalities else ''}.weight"),
        at_once=_is_at_once(source, given, stride, at_once),
        modalities=modalities,
        fusion="mean" if modalities else "sum",
        tasks=tuple((_task_name(task), size) for task, size in zip(tasks, sizes, strict=True)) if tasks else (),
    )
    with torch.device("meta"):
        model = build_model(config)
    upsampling, last, filters = _filters(source.path, given, model, tasks)
    config = replace(config, upsampling=upsampling, last_upsampling=last)

    found = {f"head.{name}": tensor for name, tensor in (scores | filters).items()}
    for modality, trunk in model.trunks.items():
        assert isinstance(trunk, Net)  # files hold published networks
        prefix = f"backbone.{modality}." if modality else "backbone."
        found |= {prefix + name: tensor for name, tensor in _take_trunk(given, trunk, modality).items()}
    return config, found | given  # What is left over is unexpected.


def _task_name(suffix: str) -> str:
    name = suffix.strip("_")
    return PUBLISHED_TASKS.get(name, name)


def _take_trunk(given: Tensors, trunk: Net, suffix: str) -> Tensors:
    taken = {}
    for name, wanted in trunk.state_dict().items():
        layer, _, part = name.rpartition(".")
        theirs = f"{layer}{suffix}.{part}"
        if theirs in given:
            taken[name] = fitted(given.pop(theirs), wanted)
    return taken


def _scores(
    given: Tensors, names: Sequence[str], modalities: Sequence[str], tasks: Sequence[str]
) -> tuple[Tensors, list[int]]:
    """Scoring layers, those of tasks one after the other and of modalities joined; classes of tasks."""
    scores: Tensors = {}
    sizes = [0] * max(1, len(tasks))
    for name in names:
        parts: dict[str, list[Tensor]] = {"weight": [], "bias": []}
        for index, task in enumerate(tasks or [""]):
            for part, found in parts.items():
                keys = [f"{name}{task}{modality}.{part}" for modality in modalities or [""]]
                tensors = [given.pop(key) for key in keys if key in given]
                if len(tensors) != len(keys):
                    continue
                sizes[index] = len(tensors[0])
                if part == "bias":
                    found.append(torch.stack(tensors).mean(0))
                else:
                    weights = [t.reshape(len(t), -1, 1, 1) if t.dim() == 2 else t for t in tensors]
                    found.append(torch.cat(weights, 1))
        scores |= {f"{name}.{part}": torch.cat(found) for part, found in parts.items() if len(found) == len(sizes)}
    return scores, sizes


def _in_channels(given: Tensors, name: str) -> int:
    return given[name].shape[1] if name in given and given[name].dim() == 4 else 3


def _is_at_once(source: Source, given: Tensors, stride: int, at_once: bool | None) -> bool:
    scales = {}
    for at in AT_ONCE_SCALES:
        scale = given.pop(f"{SCALES[at]}.weight", None)
        if scale is not None and not torch.allclose(scale, torch.tensor(AT_ONCE_SCALES[at])):
            raise ValueError(f"{source.path}: {SCALES[at]} is {scale.flatten()[0]:g}, not {AT_ONCE_SCALES[at]:g}")
        if scale is not None:
            scales[at] = scale
    skips = [at for at in AT_ONCE_SCALES if at >= stride]
    if scales and list(scales) != skips:
        raise ValueError(f"{source.path}: skips of strides {list(scales)} are scaled, the network has {skips}")
    known = True if scales else source.at_once if stride == 8 else False
    if known is None and at_once is None:
        raise ValueError(
            f"{source.path}: nothing in this file tells FCN-8s trained in stages from FCN-8s trained at once, whose "
            "skips are scaled; say which: at_once (--at-once or --no-at-once)"
        )
    if None not in (known, at_once) and known != at_once:
        raise ValueError(f"{source.path}: at_once is {at_once}, but this file is {'' if known else 'not '}of that kind")
    return bool(known if at_once is None else at_once)


def _filters(path: Path, given: Tensors, model: FCN, tasks: Sequence[str]) -> tuple[Filter, Filter, Tensors]:
    """The kinds of upsampling between streams and onto the image, and the weights of those that are not fixed."""
    kinds: dict[str, Filter] = {}
    filters: Tensors = {}
    head = model.head
    for name in (*head.fusions, head.last):
        parts = [given.pop(key) for key in (f"{name}{task}.weight" for task in tasks or [""]) if key in given]
        kernel_size = head.upsample(name).geometry.layer.kernel_size
        kinds[name] = "fixed"
        for part in parts:
            kind = _kind(path, name, part, kernel_size)
            kinds[name] = max(kinds[name], kind, key=FILTERS.index)
        if kinds[name] == "dense" and tasks:
            raise ValueError(f"{path}: {name} mixes the classes of a task, which networks of several tasks do not here")
        if parts and tasks:
            parts = [_as_kind(part, "diagonal") for part in parts]
        if parts:
            filters[f"{name}.weight"] = torch.cat(parts)
    between: Filter = max((kinds[name] for name in head.fusions), key=FILTERS.index, default="fixed")
    result: Tensors = {}
    for name in (*head.fusions, head.last):
        kind = between if name in head.fusions else kinds[name]
        if kind != "fixed" and f"{name}.weight" in filters:
            result[f"{name}.weight"] = _as_kind(filters[f"{name}.weight"], kind)
    return between, kinds[head.last], result


def _kind(path: Path, name: str, weight: Tensor, kernel_size: int) -> Filter:
    """Of a filter ``[C, C, k, k]`` or ``[C, 1, k, k]``."""
    if weight.dim() != 4 or weight.shape[2:] != (kernel_size, kernel_size) or weight.shape[1] not in (1, len(weight)):
        wanted = f"(classes, classes, {kernel_size}, {kernel_size})"
        raise ValueError(f"{path}: the tensors do not fit: {name}.weight is {tuple(weight.shape)} instead of {wanted}")
    diagonal = _as_kind(weight, "diagonal")
    if weight.shape[1] > 1 and not torch.equal(_as_kind(diagonal, "dense"), weight):
        return "dense"
    bilinear = bilinear_kernel(kernel_size).expand_as(diagonal)
    return "fixed" if torch.allclose(diagonal, bilinear, rtol=0, atol=1e-6) else "diagonal"


def _as_kind(weight: Tensor, kind: Filter) -> Tensor:
    if kind == "diagonal" and weight.shape[1] > 1:
        return weight.diagonal().permute(2, 0, 1)[:, None].contiguous()
    if kind == "dense" and weight.shape[1] == 1:
        return torch.eye(len(weight))[:, :, None, None] * weight
    return weight


def _preprocessing(path: Path, published: Preprocessing, channels: int, mean: Sequence[float] | None) -> Preprocessing:
    if mean is None and channels == published.channels:
        return published
    if mean is None or len(mean) != channels:
        given = "none" if mean is None else f"{len(mean)}"
        raise ValueError(f"{path}: the network takes {channels} channels; mean needs as many values, got {given}")
    std = (*published.std, *[1.0] * channels)[:channels]
    return replace(published, mean=tuple(float(value) for value in mean), std=std)
