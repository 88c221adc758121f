"""Files of other programs: which network one holds, and what its images must be like."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.preprocessing import CAFFE_VGG, EFFICIENTNET_LITE, IMAGENET, Preprocessing
from ..networks.backbones import BACKBONES, Architecture
from .files import METADATA_KEY
from .layouts import Layout, layouts
from .packages import weights_file
from .tensors import Tensors, check_tensors, read_metadata, read_tensors


@dataclass(frozen=True)
class Published:
    """A published file that is known by its checksum."""

    name: str
    md5: str
    at_once: bool = False


PUBLISHED = (
    Published("fcn32s_from_caffe.pth", "d3eb467a80e7da0468a20dfcbc13e6c8"),
    Published("fcn16s_from_caffe.pth", "a2d4035f669f09483b39c9a14a0d6670"),
    Published("fcn8s_from_caffe.pth", "de93e540ec79512f8770033849c8ae89"),
    Published("fcn8s-atonce_from_caffe.pth", "bfed4437e941fef58932891217fe6464", at_once=True),
    Published("vgg16_from_caffe.pth", "aa75b158f4181e7f6230029eb96c1b13"),
    Published("efficientnet-lite0-57934424.pth", "7406efdd8a1cb90d2464ddc714e33aa3"),
    Published("efficientnet-lite1-77cc7160.pth", "e187d7cb28a0c0c0812fc04ec932afcd"),
    Published("efficientnet-lite2-9656183e.pth", "1ff5589222bbf5d55c3ed7cfcd6de936"),
)
AUXILIARY = ("loss1/", "loss2/", "aux1.", "aux2.")
"""Classifiers within GoogLeNet that only its training on ImageNet needs; they are left out."""
EARLY_FUSION = "_bgrd."
"""What the authors add to the name of a first layer of color and depth."""
HALF = Preprocessing((0.5,) * 3, (0.5,) * 3, "rgb")
"""What torchvision's GoogLeNet makes of its images itself."""


@dataclass(frozen=True)
class Source:
    """What a file holds, by the published names of layers."""

    path: Path
    backbone: str
    tensors: Tensors
    preprocessing: Preprocessing
    published: Published | None
    at_once: bool | None
    """Whether skips are scaled where no layer does it; None where the file does not say."""

    @property
    def architecture(self) -> Architecture:
        return BACKBONES[self.backbone]

    @property
    def is_classifier(self) -> bool:
        return any(name.startswith(f"{self.architecture.layers[-1].name}.") for name in self.tensors)


def read_source(path: Path) -> Source:
    """``path`` may be the name of a backbone whose weights come in a package (``packages``). Raises
    ``FileNotFoundError``, or ``ValueError`` naming the file and why it holds no network known here."""
    path = weights_file(path)
    tensors, arch = read_tensors(path)
    if path.suffix == ".safetensors" and METADATA_KEY in read_metadata(path):
        raise ValueError(f"{path}: a weight file of this program already")
    published = _published(path)
    tensors = {name.replace(EARLY_FUSION, "."): t for name, t in tensors.items() if not name.startswith(AUXILIARY)}
    layout = max(layouts(), key=lambda layout: layout.resemblance(tensors))
    if layout.resemblance(tensors)[0] < 0.5:
        names = ", ".join(list(tensors)[:5])
        raise ValueError(f"{path}: its tensors ({names}, ...) are those of none of {', '.join(BACKBONES)}")
    torchvision = any(ours != theirs for ours, theirs in layout.theirs.items())
    if layout.backbone == "googlenet_torchvision":
        tensors = _fold_batch_norm(path, tensors)
    elif any(name.endswith("running_mean") for name in tensors) and not BACKBONES[layout.backbone].normalized:
        raise ValueError(f"{path}: it has batch normalization, and the published {layout.backbone} has none")
    preprocessing = CAFFE_VGG
    if layout.backbone.startswith("efficientnet_lite"):
        preprocessing = EFFICIENTNET_LITE
    elif torchvision and published is None:
        preprocessing = HALF if layout.backbone == "googlenet_torchvision" else IMAGENET
    tensors = _renamed(tensors, layout)
    return Source(path, layout.backbone, tensors, preprocessing, published, _at_once(path, arch, published))


def _renamed(tensors: Tensors, layout: Layout) -> Tensors:
    ours = {theirs: name for name, theirs in layout.theirs.items()}
    parts = {name: name.rpartition(".") for name in tensors}
    return {f"{ours.get(layer, layer)}.{part}": tensors[name] for name, (layer, _, part) in parts.items()}


def _published(path: Path) -> Published | None:
    """``ValueError`` where a file has the name of a published one and other contents."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    for known in PUBLISHED:
        if known.name == path.name and known.md5 != md5:
            raise ValueError(
                f"{path}: its MD5 is {md5}, that of the published file of this name {known.md5}: it is damaged, or "
                "another file, which needs another name"
            )
    return next((known for known in PUBLISHED if known.md5 == md5), None)


def _at_once(path: Path, arch: str, published: Published | None) -> bool | None:
    if path.suffix == ".caffemodel":
        return False  # There, scaling is a layer.
    if published is not None:
        return published.at_once
    # Names of pytorch-fcn's classes (FCN8sAtOnce) and files (fcn8s-atonce_from_caffe.pth).
    for name in (arch, path.name):
        name = name.lower().replace("-", "").replace("_", "")
        if "fcn8s" in name:
            return "atonce" in name
    return None


def _fold_batch_norm(path: Path, tensors: Tensors) -> Tensors:
    """torchvision's GoogLeNet: a convolution without bias and its batch normalization become one convolution."""
    folded: Tensors = {}
    wanted: Tensors = {}
    for name, weight in tensors.items():
        layer, _, part = name.rpartition(".conv.")
        if part == "weight":
            wanted |= {
                f"{layer}.bn.{key}": weight.new_empty(len(weight))
                for key in ("weight", "bias", "running_mean", "running_var")
            }
    check_tensors(path, {name: t for name, t in tensors.items() if ".bn." in name and "num_" not in name}, wanted)
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".conv.")
        if part == "weight":
            scale, bias, mean, variance = (
                tensors[f"{layer}.bn.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
            )
            scale = scale / torch.sqrt(variance + 1e-3)  # torchvision's epsilon here
            folded[name] = tensor * scale[:, None, None, None]
            folded[f"{layer}.conv.bias"] = bias - mean * scale
        elif ".bn." not in name:
            folded[name] = tensor
    return folded
