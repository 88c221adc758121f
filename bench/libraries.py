"""Segmentation models of other libraries, as those build them: random weights, no line of theirs changed.

A builder returns the module, its training loss and its label map, each as the library's own users call it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LossOf = Callable[[Tensor, Tensor], Tensor]
LabelsOf = Callable[[Tensor], Tensor]


@dataclass
class Model:
    module: nn.Module
    classes: int
    loss: LossOf  # of images [N, 3, H, W] and labels [N, H, W]
    labels: LabelsOf  # of images [N, 3, H, W]: [N, H, W]


def _import_torchvision() -> None:
    """torchvision, also where its compiled operators do not fit the installed torch; segmentation models use none."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:  # "operator torchvision::nms does not exist": its Python part wants to describe them
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):
                torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float t) -> Tensor")
        importlib.import_module("torchvision")


def transformers(name: str, configuration: dict[str, Any], backbone: dict[str, Any] | None = None) -> Model:
    _import_torchvision()
    library = importlib.import_module("transformers")
    config = getattr(library, f"{name}Config")
    if backbone is not None:
        configuration = {**configuration, "backbone_config": library.ConvNextConfig(**backbone)}
    module = getattr(library, f"{name}ForSemanticSegmentation")(config(**configuration))
    classes = module.config.num_labels

    def labels(images: Tensor) -> Tensor:
        # What post_process_semantic_segmentation of its image processors does.
        logits = module(pixel_values=images).logits
        return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False).argmax(dim=1)

    return Model(module, classes, lambda images, target: module(pixel_values=images, labels=target).loss, labels)


def torchvision(name: str, classes: int = 21) -> Model:
    _import_torchvision()
    segmentation = importlib.import_module("torchvision.models.segmentation")
    module = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes)
    return Model(
        module,
        classes,
        lambda images, target: F.cross_entropy(module(images)["out"], target, ignore_index=255),
        lambda images: module(images)["out"].argmax(1),
    )


def segmentation_models_pytorch(name: str, encoder: str, classes: int) -> Model:
    _import_torchvision()
    library = importlib.import_module("segmentation_models_pytorch")
    module = getattr(library, name)(encoder_name=encoder, encoder_weights=None, classes=classes)
    loss = nn.CrossEntropyLoss()
    return Model(
        module,
        classes,
        lambda images, target: loss(module(images), target),
        lambda images: module(images).argmax(dim=1),
    )


def _import_mmsegmentation() -> Any:
    """mmsegmentation beside mmcv-lite, which lacks the compiled ``mmcv.ops``: a stand-in, as these models use none."""
    _import_torchvision()
    try:
        importlib.import_module("mmcv.ops")
    except ImportError:

        class Finder:
            def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
                if name.startswith("mmcv.ops"):
                    return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
                return None

            def create_module(self, spec: Any) -> types.ModuleType:
                module = types.ModuleType(spec.name)
                module.__getattr__ = lambda name: type(name, (), {})  # type: ignore[method-assign]
                return module

            def exec_module(self, module: types.ModuleType) -> None: ...

        sys.meta_path.insert(0, Finder())
    importlib.import_module("mmengine.registry").init_default_scope("mmseg")
    importlib.import_module("mmseg.models.data_preprocessor")
    return importlib.import_module("mmseg.models")


def mmsegmentation(head: dict[str, Any], strides: tuple[int, ...], dilations: tuple[int, ...], classes: int) -> Model:
    models = _import_mmsegmentation()
    config = importlib.import_module("mmengine").Config
    sample, pixels = importlib.import_module("mmseg.structures"), importlib.import_module("mmengine.structures")
    common = {
        "num_classes": classes,
        "norm_cfg": {"type": "BN"},
        "align_corners": False,
        "loss_decode": {"type": "CrossEntropyLoss"},
    }
    auxiliary = {"type": "FCNHead", "in_channels": 256, "in_index": 2, "channels": 64, "num_convs": 1}
    backbone = {
        "type": "ResNetV1c",
        "depth": 18,
        "strides": strides,
        "dilations": dilations,
        "norm_cfg": {"type": "BN"},
    }
    module = models.build_segmentor(
        config(
            {
                "type": "EncoderDecoder",
                "backbone": {**backbone, "contract_dilation": True},
                "decode_head": {**common, **head},
                "auxiliary_head": {**common, **auxiliary},
                "test_cfg": {"mode": "whole"},
            }
        )
    )

    def samples(images: Tensor, target: Tensor | None) -> list[Any]:
        size = tuple(images.shape[2:])
        made = [
            sample.SegDataSample(metainfo={"ori_shape": size, "img_shape": size, "pad_shape": size}) for _ in images
        ]
        for one, labels in zip(made, [] if target is None else target, strict=False):
            one.gt_sem_seg = pixels.PixelData(data=labels[None])
        return made

    def loss(images: Tensor, target: Tensor) -> Tensor:
        parts = module(images, samples(images, target), mode="loss")
        total: Tensor = sum(value for name, value in parts.items() if "loss" in name)  # as its runner adds them
        return total

    def labels(images: Tensor) -> Tensor:
        predicted = module(images, samples(images, None), mode="predict")
        return torch.cat([one.pred_sem_seg.data for one in predicted])

    return Model(module, classes, loss, labels)


_CONVNEXT = {
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
_PSP = {"type": "PSPHead", "in_channels": 512, "in_index": 3, "channels": 128, "pool_scales": (1, 2, 3, 6)}
_UPER = {
    "type": "UPerHead",
    "in_channels": [64, 128, 256, 512],
    "in_index": [0, 1, 2, 3],
    "channels": 128,
    "pool_scales": (1, 2, 3, 6),
}

# Small ones, so that a run takes minutes; with ADE20K's 150 classes or VOC's 21.
MODELS: dict[str, tuple[str, Callable[[], Model]]] = {
    "SegFormer-B0": ("transformers", lambda: transformers("Segformer", {"num_labels": 150})),
    "UperNet, ConvNeXt": (
        "transformers",
        lambda: transformers(
            "UperNet",
            {"num_labels": 150, "hidden_size": 128, "auxiliary_in_channels": 256, "auxiliary_channels": 64},
            _CONVNEXT,
        ),
    ),
    "DPT": (
        "transformers",
        lambda: transformers(
            "DPT",
            {
                "num_labels": 150,
                "hidden_size": 192,
                "num_hidden_layers": 4,
                "num_attention_heads": 3,
                "intermediate_size": 768,
                "backbone_out_indices": [0, 1, 2, 3],
                "neck_hidden_sizes": [48, 96, 192, 192],
                "fusion_hidden_size": 64,
                "image_size": 512,
            },
        ),
    ),
    "MobileViT, DeepLabV3": ("transformers", lambda: transformers("MobileViT", {"num_labels": 21})),
    "LR-ASPP, MobileNetV3": ("torchvision", lambda: torchvision("lraspp_mobilenet_v3_large")),
    "DeepLabV3, MobileNetV3": ("torchvision", lambda: torchvision("deeplabv3_mobilenet_v3_large")),
    "FPN, ResNet-18": (
        "segmentation_models_pytorch",
        lambda: segmentation_models_pytorch("FPN", "resnet18", 21),
    ),
    "PSPNet, ResNet-18": (
        "segmentation_models_pytorch",
        lambda: segmentation_models_pytorch("PSPNet", "resnet18", 150),
    ),
    "DeepLabV3+, MobileNetV2": (
        "segmentation_models_pytorch",
        lambda: segmentation_models_pytorch("DeepLabV3Plus", "mobilenet_v2", 150),
    ),
    "PSPNet, ResNet-18-D8": ("mmsegmentation", lambda: mmsegmentation(_PSP, (1, 2, 1, 1), (1, 1, 2, 4), 150)),
    "UPerNet, ResNet-18": ("mmsegmentation", lambda: mmsegmentation(_UPER, (1, 2, 2, 2), (1, 1, 1, 1), 150)),
}
