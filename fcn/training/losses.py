"""The training loss of a batch, and class weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import VOID, Batch, SegmentationDataset
from ..data.resizing import reduced_size
from ..data.tasks import split_labels
from ..networks.models import FCN
from ..networks.scores import Scores
from ..recipes.config import LossConfig

SMALLEST = 1e-6
"""Where no pixel counts, the loss is 0 / SMALLEST."""


class Loss(nn.Module):
    """``loss(model, batch)``: cross-entropy over labeled pixels, added over tasks; see ``LossConfig``.

    Sums are float32. ``class_weight``: ``[C]``, those of several tasks in a row, or None.
    """

    class_weight: Tensor | None

    def __init__(self, config: LossConfig, class_weight: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("class_weight", class_weight)

    def forward(self, model: FCN, batch: Batch) -> Tensor:
        totals, divisors, _ = self.sums(model, batch)
        loss: Tensor = (totals / divisors.clamp(min=SMALLEST)).sum()
        return loss

    def sums(self, model: FCN, batch: Batch) -> Tensor:
        """``[3, T]``: of each task the sum of its losses, what that is divided by, the weight of its labeled pixels.

        Each may be added up over batches and processes before it is divided.
        """
        stride = model.config.stride
        groups = [self.group_sums(model.task_scores(group["image"]), group["target"], stride) for group in batch]
        return torch.stack(groups).sum(0)

    def group_sums(self, scores: Mapping[str, Scores], target: Tensor, stride: int) -> Tensor:
        """``sums`` from the scores of a group by task, and its targets ``[N(, T), H, W]``."""
        pixel_weight = None
        if self.training and self.config.sampling < 1:
            pixel_weight = sampled_cells(target, stride, self.config.sampling)
        class_weights: Sequence[Tensor | None] = [None] * len(scores)
        if self.class_weight is not None:
            class_weights = self.class_weight.split([each.coarse.shape[1] for each in scores.values()])
        columns = []
        for (task, own), labels, class_weight in zip(scores.items(), split_labels(target), class_weights, strict=True):
            total = self._total(own, labels, class_weight, pixel_weight) * self.config.task_weights.get(task, 1.0)
            weight = _weight(labels, class_weight, pixel_weight)
            images = weight.new_tensor(len(labels))
            columns.append(torch.stack([total, weight if self.config.normalize else images, weight]))
        return torch.stack(columns, 1)

    def _total(
        self, scores: Scores, target: Tensor, class_weight: Tensor | None, pixel_weight: Tensor | None
    ) -> Tensor:
        scores = scores.at((target.shape[-2], target.shape[-1]))
        if self.config.kind == "fused":
            return scores.loss(target, class_weight, pixel_weight=pixel_weight, ignore_index=VOID, reduction="sum")
        logits = scores.logits().float()
        losses = F.cross_entropy(logits, target.long(), class_weight, ignore_index=VOID, reduction="none")
        return losses.sum() if pixel_weight is None else (losses * pixel_weight).sum()


def _weight(target: Tensor, class_weight: Tensor | None, pixel_weight: Tensor | None) -> Tensor:
    """What the mean divides by: class weight x pixel weight over labeled pixels."""
    labeled = target != VOID
    if pixel_weight is None and class_weight is None:
        return labeled.sum().float()
    weights = labeled.float() if pixel_weight is None else labeled * pixel_weight
    if class_weight is not None:
        weights = weights * class_weight[target.long().where(labeled, 0)]
    return weights.sum()


def sampled_cells(target: Tensor, stride: int, probability: float) -> Tensor:
    """Pixel weights ``[N, H, W]``: in cells of ``stride`` x ``stride`` 1 / probability or 0, at random.

    The expected loss and gradient are those of the whole image (CVPR 2015, section 4.4). ``target``:
    ``[N(, T), H, W]``; several tasks share the cells.
    """
    images, (height, width) = len(target), target.shape[-2:]
    cells = torch.rand(images, -(-height // stride), -(-width // stride), device=target.device) < probability
    pixels = cells.repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, :height, :width]
    return pixels.float() / probability


def labeled_pixels(
    dataset: SegmentationDataset, crop: tuple[int, int] | None, longest_side: int | None = None
) -> float:
    """Of an image and a task, on average, as training sees it: reduced, or a crop."""
    counts = []
    for index in range(len(dataset)):
        labeled = dataset[index]["target"] != VOID
        height, width = crop or reduced_size(labeled.shape[-2:], longest_side)
        counts.append(labeled.sum() * height * width / labeled.size)
    return float(np.mean(counts))


def class_weights(dataset: SegmentationDataset, kind: str) -> Tensor | None:
    """``LossConfig.class_weights`` of ``dataset``: ``[C]`` float32, or None."""
    if kind == "none":
        return None
    weights = median_frequency_weights(dataset)
    return weights.sqrt() if kind == "root_median_frequency" else weights


def median_frequency_weights(dataset: SegmentationDataset) -> Tensor:
    """Median frequency / frequency of each class, ``[C]`` float32; 0 for a class without pixels.

    The frequency of a class is its share of the labeled pixels of those images that have it (Eigen and Fergus 2015).
    Those of several tasks are in a row, each from its own labels.
    """
    return torch.cat([_median_frequency_weights(part) for part in dataset.tasks.values()])


def _median_frequency_weights(dataset: SegmentationDataset) -> Tensor:
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
