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
        losses = [self._sum(model.scores(group["image"]), group["target"]) for group in batch]
        total = torch.stack(losses).sum()
        if not self.config.normalize:
            return total / sum(len(group["target"]) for group in batch)
        counts = [self._count(group["target"]) for group in batch]
        return total / torch.stack(counts).sum().clamp(min=1e-6)

    def _sum(self, scores: Scores, target: Tensor) -> Tensor:
        if self.config.kind == "fused":
            return scores.loss(target, self.class_weight, ignore_index=VOID, reduction="sum")
        logits = scores.logits().float()
        return F.cross_entropy(logits, target.long(), self.class_weight, ignore_index=VOID, reduction="sum")

    def _count(self, target: Tensor) -> Tensor:
        labeled = target[target != VOID]
        if self.class_weight is None:
            return torch.tensor(float(labeled.numel()), device=target.device)
        return self.class_weight[labeled.long()].sum()


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
