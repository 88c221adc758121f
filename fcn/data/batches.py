"""From data sets to batches.

A batch is a list of groups of images of one size, so that images of different sizes go through the network unpadded and
each gives exactly what it gives alone. Order and random views are functions of (seed, epoch, index): nothing has to be
stored to resume, and the number of worker processes does not change them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from .augment import Augmentation, to_tensor
from .dataset import Sample, SegmentationDataset
from .preprocessing import Preprocessing
from .resizing import resized_labels

Draw = tuple[int, int]  # (epoch, index)


class Group(TypedDict):
    """Images of one size."""

    image: Tensor  # float32 [N, C, h, w], preprocessed; in validation it may be smaller than the target
    target: Tensor  # uint8 [N, H, W], 255 = void; of several tasks [N, T, H, W]


Batch = list[Group]


def training_loader(
    dataset: SegmentationDataset,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> DataLoader[Batch]:
    """Shuffled, augmented batches, going on after ``first_step`` batches of earlier epochs and of the current one.

    Of several processes, each gets its own part of every batch.
    """
    return DataLoader(
        _TrainingViews(dataset, preprocessing, augmentation, seed),  # type: ignore[arg-type]
        batch_sampler=ShuffledBatches(len(dataset), batch_size, seed, first_step, rank, processes),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def evaluation_loader(
    dataset: SegmentationDataset,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 1,
    workers: int = 0,
    rank: int = 0,
    processes: int = 1,
) -> DataLoader[Batch]:
    """Every sample once, in order; of several processes, in one of them. Labels at their own size, images as the
    network is to see them."""
    return DataLoader(
        _Views(dataset, preprocessing),  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=range(rank, len(dataset), processes),
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=torch.cuda.is_available(),
    )


def _leave_signals_to_the_parent(_: int) -> None:
    """In a worker. A terminal and batch systems signal every process; the one that trains decides when workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none: there SIGTERM ends workers whoever sends it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told_by, args=(os.getppid(),), daemon=True).start()


def _end_when_told_by(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def collate(samples: Sequence[tuple[Tensor, Tensor]]) -> Batch:
    """(image ``[C, H, W]``, target ``[(T, )H, W]``) pairs to groups of equal size, in order of first appearance."""
    sizes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
    for image, target in samples:
        sizes.setdefault(target.shape, []).append((image, target))
    groups: Batch = []
    for members in sizes.values():
        images, targets = zip(*members, strict=True)
        groups.append({"image": torch.stack(images), "target": torch.stack(targets)})
    return groups


class ShuffledBatches(Sampler[list[Draw]]):
    """Each epoch a new order of all samples; ``set_epoch`` says which.

    Of several processes, each takes every ``processes``-th sample of a batch. A last batch with fewer samples than
    processes is left out.
    """

    def __init__(
        self, samples: int, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, processes: int = 1
    ) -> None:
        self.samples, self.batch_size, self.seed, self.first_step = samples, batch_size, seed, first_step
        self.rank, self.processes = rank, processes
        self.epoch = first_step // len(self)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.samples, self.batch_size)
        return full + (rest >= self.processes)

    def __iter__(self) -> Iterator[list[Draw]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.samples)
        resumed_epoch, done = divmod(self.first_step, len(self))
        for batch in range(done if self.epoch == resumed_epoch else 0, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in indices[self.rank :: self.processes]]


class _Views(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, dataset: SegmentationDataset, preprocessing: Preprocessing) -> None:
        self.dataset, self.preprocessing = dataset, preprocessing

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        sample: Sample = self.dataset[index]
        return self.preprocessing(self.preprocessing.reduced(sample["image"])), to_tensor(sample["target"])


class _TrainingViews(Dataset[tuple[Tensor, Tensor]]):
    def __init__(
        self, dataset: SegmentationDataset, preprocessing: Preprocessing, augmentation: Augmentation, seed: int
    ) -> None:
        self.dataset, self.preprocessing, self.augmentation, self.seed = dataset, preprocessing, augmentation, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        epoch, index = draw
        random = np.random.default_rng([self.seed, epoch, index])
        sample: Sample = self.dataset[index]
        image = self.preprocessing.reduced(sample["image"])
        target = resized_labels(sample["target"], image.shape[:2])
        image, target = self.augmentation.resize_and_mirror(image, target, random)
        return self.augmentation.cut(self.preprocessing(image), to_tensor(target), random)
