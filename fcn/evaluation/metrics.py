"""Pixel accuracy, mean accuracy, mean IU and frequency weighted IU (CVPR 2015, section 5) from one confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

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
    class_iu: list[float] = field(repr=False)
    class_accuracy: list[float] = field(repr=False)
    confusion: Tensor = field(repr=False)
    trimap_iu: dict[int, float] = field(default_factory=dict, repr=False)
    """Mean IU of the pixels near a boundary, by the width of the band in pixels (see ``near_boundary``)."""


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


def near_boundary(target: Tensor, width: int) -> Tensor:
    """The pixels of ``target`` ``[N, H, W]`` that have another label, void included, at most ``width`` pixels away.

    Distance is that of a king on a chessboard. Scores in such a band, a trimap, say how well outlines are followed:
    Kohli, Ladicky and Torr 2009; DeepLab's figures. Returns bool ``[N, H, W]``.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1 pixel, got {width}")
    labels = target.float()[:, None]
    # Some label in the window differs: its largest or its smallest does. (Padding takes part in neither.)
    largest, smallest = (sign * F.max_pool2d(sign * labels, 2 * width + 1, 1, width) for sign in (1, -1))
    near: Tensor = (largest != labels) | (smallest != labels)
    return near[:, 0]


class SegmentationMetrics(nn.Module):
    """Adds up the confusion matrix of a whole split, over batches and processes; ``compute`` gives its ``Metrics``.

    ``absent``: see ``metrics_from_confusion``. ``trimap``: widths of bands along the boundaries, see ``near_boundary``.
    Counts are a buffer that ``to`` moves and that no state dict holds. (Not a ``torchmetrics.Metric``: importing that
    takes longer than all of this program.)
    """

    confusion: Tensor

    def __init__(
        self, classes: int, ignore_index: int = 255, absent: Absent = "exclude", trimap: Sequence[int] = ()
    ) -> None:
        super().__init__()
        if any(width < 1 for width in trimap):
            raise ValueError(f"trimap must hold widths of at least 1 pixel, got {list(trimap)}")
        self.trimap = tuple(trimap)
        self.classes = classes
        self.ignore_index = ignore_index
        self.absent: Absent = absent
        # Of all pixels, then of those in each trimap. int64: float32 would lose counts above 2^24.
        zeros = torch.zeros(1 + len(self.trimap), classes, classes, dtype=torch.int64)
        self.register_buffer("confusion", zeros, persistent=False)

    def reset(self) -> None:
        """Forgets every pixel."""
        self.confusion.zero_()

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
        for name, values in (("target", target[counted]), ("labels", labels[counted])):
            wrong = values[(values < 0) | (values >= self.classes)]
            if wrong.numel():
                raise ValueError(f"{name} must be in [0, {self.classes}) or void, got {wrong[0].item()}")
        pairs = self.classes * target.long() + labels.long()
        for index, width in enumerate((None, *self.trimap)):
            chosen = counted if width is None else counted & near_boundary(target, width)
            counts = torch.bincount(pairs[chosen], minlength=self.classes**2)
            self.confusion[index] += counts.reshape(self.classes, self.classes)

    def compute(self) -> Metrics:
        """The metrics of all pixels so far: of all processes, where there are several, each of which must call this."""
        total = self.confusion.clone()  # later batches leave the result as it is
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
        whole, *bands = (metrics_from_confusion(confusion, self.absent) for confusion in total)
        return replace(whole, trimap_iu={width: band.mean_iu for width, band in zip(self.trimap, bands, strict=True)})
