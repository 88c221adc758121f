"""What training starts from: the trunk of another network, or trained networks, scores included."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..data.nyud import PUBLISHED as NYUD_PUBLISHED
from ..data.preprocessing import CAFFE_VGG, IMAGENET, Preprocessing
from ..data.siftflow import PUBLISHED as SIFTFLOW_PUBLISHED
from ..networks.backbones import BACKBONES, is_traced
from ..networks.backbones.traced import network_named
from ..networks.models import FCN, ModelConfig, late_fusion
from .convert import fitted
from .files import METADATA_KEY, Weights, load_weights
from .sources import read_source
from .tensors import Tensors, check_tensors, read_metadata

TORCHVISION_DIFFERS = {
    "alexnet_torchvision": "it has other widths, no groups and no local response normalization",
    "googlenet_torchvision": "it has batch normalization in place of local response normalization, filters of 3x3 in "
    "the branches called 5x5, and a fourth pooling of 2x2",
}

AUTHORS = (*NYUD_PUBLISHED.values(), SIFTFLOW_PUBLISHED)

ALIKE = ("backbone", "pad", "in_channels", "modalities", "fusion", "classes", "tasks")
"""What a network and the one that starts it have in common."""


def load_pretrained_backbone(
    model: FCN, path: str | os.PathLike[str], preprocessing: Preprocessing | None = None
) -> None:
    """Fills the trunk of ``model`` from a classifier or an FCN, in any format that ``convert`` reads or its results.

    ``path`` may be the name of a backbone whose weights come in a package (``efficientnet_lite0``) or from a library
    (``torchvision:NAME``). Scores are left out, and with them the layers behind ``model.config.truncate``. Fully
    connected layers of which the file has none start anew, with a warning. ``preprocessing`` of the images is that
    which the weights were made with (``prepared_for``), else there is a warning. Where the network takes more channels
    than the file's (early fusion), each further one starts as the mean of the others (the authors' RGB-D network).
    Raises ``FileNotFoundError``, or ``ValueError`` naming the file and every tensor that does not fit.
    """
    path = Path(path)
    backbone, given, wanted_preprocessing = _trunk_of(path)
    if backbone != model.config.backbone:
        why = TORCHVISION_DIFFERS.get(backbone)
        raise ValueError(
            f"{path}: these are weights of {backbone}, the network is {model.config.backbone}"
            + (f": {why}; build the network on {backbone}" if why else "")
        )
    if preprocessing is not None and not _colors_alike(wanted_preprocessing, preprocessing):
        warnings.warn(
            f"{path}: trained on images prepared by {wanted_preprocessing}, here it is {preprocessing}; "
            "data.preprocessing: weights prepares them as there",
            stacklevel=2,
        )
    trained = {name.rpartition(".")[0] for name in given}
    published = BACKBONES[backbone].layers if backbone in BACKBONES else ()
    classifier = [layer.name for layer in published[:-1] if layer.kind == "linear"]
    for trunk in model.trunks.values():
        wanted = trunk.state_dict()
        fresh = [name for name in classifier if f"{name}.weight" in wanted]
        if fresh and not trained.intersection(classifier):
            warnings.warn(f"{path}: it has no {' and '.join(fresh)}; they start anew", stacklevel=2)
            wanted = {name: t for name, t in wanted.items() if name.rpartition(".")[0] not in fresh}
        if is_traced(backbone):  # a classifier, of which the trunk is a part
            given = {name: tensor for name, tensor in given.items() if name in wanted}
        tensors = {name: fitted(tensor, wanted.get(name)) for name, tensor in given.items()}
        first = f"{trunk.layers[0].name}.weight"
        if first in tensors and tensors[first].shape[1] < trunk.in_channels and tensors[first].shape[1] == 3:
            further = tensors[first].mean(1, keepdim=True).expand(-1, trunk.in_channels - 3, -1, -1)
            tensors[first] = torch.cat((tensors[first], further), 1)
        if model.config.truncate:
            behind = BACKBONES[backbone].parameters.keys() - {name.rpartition(".")[0] for name in wanted}
            tensors = {name: t for name, t in tensors.items() if name.rpartition(".")[0] not in behind}
        check_tensors(path, tensors, wanted)
        trunk.load_state_dict(tensors, strict=False)  # but for what starts anew, all of it


def prepared_for(path: str | os.PathLike[str]) -> Preprocessing:
    """How images were prepared for the weights in a file, or of the backbone of this name in a package or library."""
    return _trunk_of(Path(path))[2]


def _colors_alike(given: Preprocessing, wanted: Preprocessing) -> bool:
    """Whether the first channels are prepared alike. The authors' networks for other data start from Caffe's weights
    with the mean, and for HHA the order, of their own images."""
    if given == CAFFE_VGG and wanted in AUTHORS:
        return True
    first = replace(wanted, mean=wanted.mean[:3], std=wanted.std[:3])
    return given.channels == first.channels and _same([given], first)


def _trunk_of(path: Path) -> tuple[str, Tensors, Preprocessing]:
    """The backbone's name, its tensors without scores, and how images are prepared for it."""
    if is_traced(str(path)):
        network = network_named(str(path), pretrained=True)
        return str(path), {f"net.{name}": tensor for name, tensor in network.state_dict().items()}, _of_library(network)
    if path.suffix == ".safetensors" and METADATA_KEY in read_metadata(path):
        weights = load_weights(path)
        if weights.model.config.modalities:
            raise ValueError(f"{path}: a network of several modalities, of which none is the trunk")
        return weights.model.config.backbone, weights.model.backbone.state_dict(), weights.preprocessing
    source = read_source(path)
    scores = f"{source.architecture.layers[-1].name}."
    heads = (scores, "score_", "upscore", "scale_pool")
    trunk = {name: t for name, t in source.tensors.items() if not name.startswith(heads)}
    return source.backbone, trunk, source.preprocessing


def _of_library(network: torch.nn.Module) -> Preprocessing:
    """That of torchvision's weights; timm says with each network what it was."""
    known = getattr(network, "pretrained_cfg", None) or {}
    mean, std = (tuple(known.get(key, default)) for key, default in (("mean", IMAGENET.mean), ("std", IMAGENET.std)))
    return Preprocessing(mean=mean, std=std)


def start_from(model: FCN, files: str | Mapping[str, str], preprocessing: Preprocessing) -> None:
    """Fills ``model``, scores included, from a trained network, or from one of each modality (``late_fusion``).

    ``files`` are this program's. What they lack, as new skips, stays as it is. Warns where they were trained on images
    prepared in another way than by ``preprocessing``. Raises ``FileNotFoundError``, or ``ValueError`` naming the file
    and what does not fit.
    """
    if isinstance(files, str):
        weights = [_network(Path(files), model.config)]
        start = weights[0].model
    else:
        modalities = model.config.modalities
        if set(files) != set(modalities):
            given, wanted = (", ".join(names) or "none" for names in (files, modalities))
            raise ValueError(f"init_from: files are for the modalities {given}; those of the network are {wanted}")
        alone = replace(model.config, modalities=(), fusion="sum")
        weights = [_network(Path(files[name]), alone) for name in modalities]
        start = late_fusion({name: each.model for name, each in zip(modalities, weights, strict=True)})
    if not _same([each.preprocessing for each in weights], preprocessing):
        given = " and ".join(str(each.preprocessing) for each in weights)
        warnings.warn(f"init_from: trained on images prepared by {given}, here it is {preprocessing}", stacklevel=2)
    model.init_from(start)


def _network(path: Path, wanted: ModelConfig) -> Weights:
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: a weight file of this program is wanted (.safetensors; 'fcn convert' makes them)")
    weights = load_weights(path)
    given = weights.model.config
    # Where both have skips, their scores must be of maps scaled alike.
    alike = (*ALIKE, "at_once") if max(given.stride, wanted.stride) < 32 else ALIKE
    differing = [name for name in alike if getattr(given, name) != getattr(wanted, name)]
    if differing:
        values = (f"{name} {getattr(given, name)!r} instead of {getattr(wanted, name)!r}" for name in differing)
        raise ValueError(f"{path}: no start for this network: it has {', '.join(values)}")
    return weights


def _same(given: Sequence[Preprocessing], wanted: Preprocessing) -> bool:
    """Whether images are prepared by ``wanted`` as by each of ``given`` on its share of the channels."""
    image = np.random.default_rng(0).integers(0, 256, (4, 4, wanted.channels), dtype=np.uint8)
    parts = np.split(image, len(given), axis=2)
    prepared = [own(part[:, :, 0] if own.channels == 1 else part) for own, part in zip(given, parts, strict=True)]
    whole = wanted(image[:, :, 0] if wanted.channels == 1 else image)
    return torch.allclose(torch.cat(prepared), whole, rtol=1e-4, atol=1e-4)
