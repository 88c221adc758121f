"""The names that layers have in files of other programs: as published with Caffe, torchvision's, or EfficientNet's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..networks.backbones import BACKBONES

# torchvision numbers its layers: convolutions, ReLUs and poolings in one sequence, then the fully connected ones.
NUMBERED = {
    "vgg16": ("classifier.0", "classifier.3", "classifier.6"),
    "vgg19": ("classifier.0", "classifier.3", "classifier.6"),
    "alexnet_torchvision": ("classifier.1", "classifier.4", "classifier.6"),
}
BRANCHES = {
    "branch1": "1x1",
    "branch2.0": "3x3_reduce",
    "branch2.1": "3x3",
    "branch3.0": "5x5_reduce",
    "branch3.1": "5x5",
    "branch4.1": "pool_proj",
}
STEM = {"conv1": "conv1/7x7_s2", "conv2": "conv2/3x3_reduce", "conv3": "conv2/3x3"}
NOT_OF_THE_BACKBONE = ("score", "upscore", "scale")


@dataclass(frozen=True)
class Layout:
    """How a file names the layers of a backbone."""

    backbone: str
    theirs: Mapping[str, str]
    """Our name of each module with parameters, and theirs."""

    def resemblance(self, given: Mapping[str, Tensor]) -> tuple[float, int]:
        """The share of layers in common, the class scores left out, and how many of them have the same width."""
        *ours, _ = ((name, width) for name, width in BACKBONES[self.backbone].parameters.items() if name in self.theirs)
        wanted = {self.theirs[name]: width for name, width in ours}
        class_scores = list(self.theirs.values())[-1]
        names = {name.rpartition(".")[0] for name in given if name.endswith((".weight", ".bias"))} - {class_scores}
        names = {name for name in names if not name.startswith(NOT_OF_THE_BACKBONE) and not name.endswith(".bn")}
        endings = tuple(filter(None, suffixes(names - wanted.keys(), next(iter(wanted)))))
        found = {next((name.removesuffix(end) for end in endings if name.endswith(end)), name) for name in names}
        widths = sum(len(given.get(f"{name}.weight", ())) == width for name, width in wanted.items())
        return len(found & wanted.keys()) / len(found | wanted.keys()), widths


def suffixes(names: Iterable[str], first: str) -> list[str]:
    """What follows the name of the first layer: "" or, in networks of several modalities, each one's suffix."""
    return [name.removeprefix(first) for name in names if name.startswith(first)] or [""]


def layouts() -> list[Layout]:
    """Every layout of every backbone."""
    found = []
    for backbone, architecture in BACKBONES.items():
        if not backbone.endswith("_torchvision"):
            found.append(Layout(backbone, {name: name for name in architecture.parameters}))
        if backbone.startswith("efficientnet_lite"):
            found.append(Layout(backbone, _efficientnet(architecture.parameters)))
    for backbone, fully_connected in NUMBERED.items():
        theirs, index = {}, 0
        for layer in BACKBONES[backbone].layers:
            if layer.kind == "conv":
                theirs[layer.name] = f"features.{index}"
                index += 2
            elif layer.kind == "pool":
                index += 1
        linear = [layer.name for layer in BACKBONES[backbone].layers if layer.kind == "linear"]
        found.append(Layout(backbone, theirs | dict(zip(linear, fully_connected, strict=True))))
    theirs = {ours: f"{name}.conv" for name, ours in STEM.items()}
    for layer in BACKBONES["googlenet_torchvision"].layers:
        module, _, part = layer.name.partition("/")
        branch = next((name for name, ours in BRANCHES.items() if ours == part), None)
        if branch and module.startswith("inception_"):
            theirs[layer.name] = f"{module.replace('_', '')}.{branch}.conv"
    found.append(Layout("googlenet_torchvision", {**theirs, "loss3/classifier": "fc"}))
    return found


def _efficientnet(names: Iterable[str]) -> dict[str, str]:
    """Those of lukemelas' and ml-illustrated's PyTorch packages: a block's normalizations are numbered."""
    theirs = {"stem": "_conv_stem", "stem_norm": "_bn0", "head": "_conv_head", "head_norm": "_bn1", "fc": "_fc"}
    norms = {"expand_norm": "_bn0", "depthwise_norm": "_bn1", "project_norm": "_bn2"}
    for name in names:
        block, _, part = name.partition("/")
        if part:
            theirs[name] = f"_blocks.{block.removeprefix('block')}.{norms.get(part, f'_{part}_conv')}"
    return {name: theirs[name] for name in names}
