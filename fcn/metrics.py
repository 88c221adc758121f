"""Pixel accuracy, mean accuracy, mean IU and frequency weighted IU (CVPR 2015, section 5) from one confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchmetrics import Metric

Absent = Literal["exclude", "official", "zero"]


@dataclass
class Metrics:
    """Scores in [0, 1]; nan where undefined. ``class_iu`` and ``class_accuracy`` have one entry per class.

    The means are those of the entries that are not nan.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iu: float
    frequency_weighted_iu: float
    class_iu: list[float]
    class_accuracy: list[float]
    confusion: Tensor


def metrics_from_confusion(confusion: Tensor, absent: Absent = "exclude") -> Metrics:
    """The metrics of ``confusion`` ``[C, C]``: pixel counts, rows the true class and columns the predicted one.

    ``absent`` says what a class without a true pixel counts in the means. Pixels wrongly given to it are errors of
    their true classes in every case.

    * ``"exclude"``: nothing; it has no IU and no accuracy.
    * ``"official"``: as the authors' ``score.py``: an IU of 0 if it was predicted anywhere, else nothing.
    * ``"zero"``: an IU and an accuracy of 0.

    A matrix without a pixel gives nan throughout.
    """
    if absent not in get_args(Absent):
        raise ValueError(f"absent must be one of {get_args(Absent)}, got {absent!r}")
    if confusion.dim() != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"confusion must be [C, C], got {tuple(confusion.shape)}")
    counts = confusion.double()
    correct, truth, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    total = truth.sum()
    accuracy = correct / truth  # 0 / 0 is nan.
    iu = correct / (truth + predicted - correct)
    frequency_weighted = (truth * iu)[truth > 0].sum() / total
    if absent == "exclude":
        iu[truth == 0] = torch.nan
    elif absent == "zero" and total > 0:
        iu[truth == 0] = 0
        accuracy[truth == 0] = 0
    return Metrics(
        pixel_accuracy=(correct.sum() / total).item(),
        mean_accuracy=accuracy.nanmean().item(),
        mean_iu=iu.nanmean().item(),
        frequency_weighted_iu=frequency_weighted.item(),
        class_iu=iu.tolist(),
        class_accuracy=accuracy.tolist(),
        confusion=confusion,
    )


class SegmentationMetrics(Metric):
    """Adds up the confusion matrix of a whole split, over batches and processes; ``compute`` gives its ``Metrics``."""

    full_state_update = False
    confusion: Tensor

    def __init__(self, classes: int, ignore_index: int = 255, absent: Absent = "exclude", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.ignore_index = ignore_index
        self.absent: Absent = absent
        # int64: float32 would lose counts above 2^24.
        self.add_state("confusion", torch.zeros(classes, classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, labels: Tensor, target: Tensor) -> None:
        """Counts predicted ``labels`` against ``target``: integers of equal shape.

        Pixels whose target is ``ignore_index`` drop out. Any other target or label outside ``[0, classes)`` raises
        ``ValueError``: the authors' code drops such targets in silence, which hides broken label files.
        """
        if labels.shape != target.shape:
            raise ValueError(
                f"labels and target must have equal shapes, got {tuple(labels.shape)}, {tuple(target.shape)}"
            )
        counted = target != self.ignore_index
        labels, target = labels[counted].long(), target[counted].long()
        for name, values in (("target", target), ("labels", labels)):
            wrong = values[(values < 0) | (values >= self.classes)]
            if wrong.numel():
                raise ValueError(f"{name} must be in [0, {self.classes}) or void, got {wrong[0].item()}")
        pairs = torch.bincount(self.classes * target + labels, minlength=self.classes**2)
        self.confusion += pairs.reshape(self.classes, self.classes)

    def compute(self) -> Metrics:
        return metrics_from_confusion(self.confusion, self.absent)
