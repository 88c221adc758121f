"""A network with what comes before and after it: from images as they are to labels, in one module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data.preprocessing import LUMA, Preprocessing
from ..errors import ConfigError
from ..networks.models import FCN
from ..weights import Weights


class Labeler(nn.Module):
    """uint8 images ``[N, H, W, 3]`` (RGB) to labels ``[N, H, W]``, and with ``confidence`` the probability of each,
    float32: what ``Predictor`` gives in float32. Steps and their order are those of ``Preprocessing``.

    uint8 labels, int64 above 256 classes. Channels come last, as programs that read images give them.
    """

    scale: Tensor
    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, model: FCN, preprocessing: Preprocessing, confidence: bool = False) -> None:
        super().__init__()
        self.model, self.order, self.confidence = model, preprocessing.channel_order, confidence
        for name in ("scale", "mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(preprocessing, name), dtype=torch.float32))
        self.register_buffer("luma", torch.from_numpy(LUMA))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        values = images.float()
        if self.order == "gray":
            values = (values @ self.luma)[..., None]
        elif self.order == "bgr":
            values = values.flip(3)
        values = (values / self.scale - self.mean) / self.std
        scores = self.model.scores(values.permute(0, 3, 1, 2))
        return scores.labels(confidence=True) if self.confidence else scores.labels()


def labeler(weights: Weights, confidence: bool = False) -> Labeler:
    """``ConfigError`` for networks that one image of three colors or one label map is not enough for."""
    if weights.model.config.tasks:
        names = ", ".join(weights.model.config.task_classes)
        raise ConfigError(f"this network has tasks {names}, and a graph for one label map is all that can be exported")
    if weights.preprocessing.channels > 3:
        raise ConfigError(
            f"this network sees {weights.preprocessing.channels} channels, and a graph for RGB images is all that can "
            "be exported"
        )
    return Labeler(weights.model, weights.preprocessing, confidence).eval()
