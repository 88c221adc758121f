"""The training loss of a batch, and class weights."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LossConfig
from .data import VOID, Batch, SegmentationDataset
from .models import FCN
from .scores import Scores

SMALLEST = 1e-6
"""Where no pixel counts, the loss is 0 / SMALLEST."""


class Loss(nn.Module):
    """``loss(model, batch)``: cross-entropy over labeled pixels; see ``LossConfig``. Sums are float32.

    ``class_weight``: ``[C]`` or None.
    """

    class_weight: Tensor | None

    def __init__(self, config: LossConfig, class_weight: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("class_weight", class_weight)

    def forward(self, model: FCN, batch: Batch) -> Tensor:
        total, divisor, _ = self.sums(model, batch)
        return total / divisor.clamp(min=SMALLEST)

    def sums(self, model: FCN, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The sum of the losses, what the loss divides it by, and the weight of the labeled pixels.

        Each may be added up over batches and processes before it is divided.
        """
        losses, weights = [], []
        for group in batch:
            target, scores = group["target"], model.scores(group["image"])
            pixel_weight = None
            if self.training and self.config.sampling < 1:
                pixel_weight = sampled_cells(target, model.config.stride, self.config.sampling)
            losses.append(self._sum(scores, target, pixel_weight))
            weights.append(self._weight(target, pixel_weight))
        weight = torch.stack(weights).sum()
        images = weight.new_tensor(sum(len(group["target"]) for group in batch))
        return torch.stack(losses).sum(), weight if self.config.normalize else images, weight

    def _sum(self, scores: Scores, target: Tensor, pixel_weight: Tensor | None) -> Tensor:
        if self.config.kind == "fused":
            return scores.loss(target, self.class_weight, pixel_weight=pixel_weight, ignore_index=VOID, reduction="sum")
        logits = scores.logits().float()
        losses = F.cross_entropy(logits, target.long(), self.class_weight, ignore_index=VOID, reduction="none")
        return losses.sum() if pixel_weight is None else (losses * pixel_weight).sum()

    def _weight(self, target: Tensor, pixel_weight: Tensor | None) -> Tensor:
        """What the mean divides by: class weight x pixel weight over labeled pixels."""
        labeled = target != VOID
        if pixel_weight is None and self.class_weight is None:
            return labeled.sum().float()
        weights = labeled.float() if pixel_weight is None else labeled * pixel_weight
        if self.class_weight is not None:
            weights = weights * self.class_weight[target.long().where(labeled, 0)]
        return weights.sum()


def sampled_cells(target: Tensor, stride: int, probability: float) -> Tensor:
    """Pixel weights ``[N, H, W]``: in cells of ``stride`` x ``stride`` 1 / probability or 0, at random.

    The expected loss and gradient are those of the whole image (CVPR 2015, section 4.4).
    """
    images, height, width = target.shape
    cells = torch.rand(images, -(-height // stride), -(-width // stride), device=target.device) < probability
    pixels = cells.repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, :height, :width]
    return pixels.float() / probability


def labeled_pixels(dataset: SegmentationDataset, crop: tuple[int, int] | None) -> float:
    """Of an image, on average; of a crop of it where images are cropped."""
    counts = []
    for index in range(len(dataset)):
        labeled = dataset[index]["target"] != VOID
        counts.append(labeled.sum() if crop is None else labeled.mean() * crop[0] * crop[1])
    return float(np.mean(counts))


def median_frequency_weights(dataset: SegmentationDataset) -> Tensor:
    """Median frequency / frequency of each class, ``[C]`` float32; 0 for a class without pixels.

    The frequency of a class is its share of the labeled pixels of those images that have it (Eigen and Fergus 2015).
    """
    classes = len(dataset.classes)
    pixels, totals = np.zeros(classes), np.zeros(classes)
    for index in range(len(dataset)):
        target = dataset[index]["target"]
        counts = np.bincount(target[target != VOID], minlength=classes)
        pixels += counts
        totals += np.where(counts > 0, counts.sum(), 0)
    present = pixels > 0
    frequency = np.divide(pixels, totals, where=present, out=np.ones(classes))
    weights = np.where(present, np.median(frequency[present]) / frequency, 0.0)
    return torch.tensor(weights, dtype=torch.float32)
