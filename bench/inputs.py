"""Synthetic inputs with a fixed seed: scores and label maps. Made on the CPU, so that every device sees the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SEED = 2015
IGNORE_INDEX = 255


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def scores(shape: tuple[int, int, int, int]) -> Tensor:
    """White noise: every class wins somewhere in every neighbourhood. The worst case for pruning classes."""
    return torch.randn(shape, generator=generator())


def voronoi_labels(shape: tuple[int, int, int], classes: int, regions: int = 12) -> Tensor:
    """Regions of one label each, as in annotated images: int64, 5 % of the pixels ignored in one band at the top."""
    count, height, width = shape
    random = generator()
    centers = torch.rand(count, regions, 2, generator=random) * torch.tensor([height, width])
    labels = torch.randint(classes, (count, regions), generator=random)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    target = torch.empty(shape, dtype=torch.int64)
    for image in range(count):
        y, x = centers[image, :, 0], centers[image, :, 1]
        nearest = ((rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2).argmin(-1)
        target[image] = labels[image][nearest]
    target[:, : max(1, height // 20)] = IGNORE_INDEX
    return target


def random_labels(shape: tuple[int, int, int], classes: int) -> Tensor:
    """A label drawn for each pixel on its own: the worst case for anything that profits from regions."""
    return torch.randint(classes, shape, generator=generator())


def blob_scores(shape: tuple[int, int, int, int]) -> Tensor:
    """Scores such as a trained network gives: one class clearly ahead inside each region, smooth at its borders."""
    count, classes, height, width = shape
    one_hot = F.one_hot(voronoi_labels((count, height, width), classes).clamp(max=classes - 1), classes)
    smooth = F.avg_pool2d(one_hot.movedim(-1, 1).float(), 3, stride=1, padding=1, count_include_pad=False)
    return 10 * smooth + torch.randn(shape, generator=generator())
