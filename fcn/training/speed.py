"""What a step and a validation of a recipe cost on this machine."""

from __future__ import annotations

import itertools
import time

import torch

from ..data import SegmentationDataset, evaluation_loader, training_loader
from ..networks.models import parameter_groups
from ..recipes.automatic import Cost
from ..recipes.config import Recipe
from .losses import Loss
from .memory import freed_memory_kept
from .start import new_network, preprocessing_of

STEPS = 3


@freed_memory_kept()
def measured(recipe: Recipe, train_set: SegmentationDataset, val_set: SegmentationDataset) -> Cost:
    """Takes the first steps of a recipe with random weights, and labels a validation image."""
    data = recipe.data
    device = torch.device("cuda" if torch.cuda.is_available() and recipe.trainer.accelerator != "cpu" else "cpu")
    preprocessing = preprocessing_of(data, recipe.model, train_set)
    model = new_network(recipe.model, recipe.stages.stride[-1], train_set, preprocessing).to(device).train()
    loss = Loss(recipe.loss).to(device)
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3, 0.0))
    reading, computing = [], []
    loader = training_loader(train_set, preprocessing, data.augment, batch_size=data.batch_size, seed=0)
    views = iter(itertools.chain.from_iterable(itertools.repeat(loader)))
    for _ in range(STEPS):
        start = time.perf_counter()
        batch = next(views)
        reading.append(time.perf_counter() - start)
        start = time.perf_counter()
        for group in batch:
            group["image"], group["target"] = group["image"].to(device), group["target"].to(device)
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        computing.append(time.perf_counter() - start)
    model.eval()
    start = time.perf_counter()
    (group,) = next(iter(evaluation_loader(val_set, preprocessing)))
    with torch.inference_mode():
        scores = model.task_scores(group["image"].to(device))
        next(iter(scores.values())).labels().cpu()
    validation = (time.perf_counter() - start) * len(val_set)
    # The first step also allocates.
    read, compute = min(reading[1:]), min(computing[1:])
    return Cost(max(read / data.workers, compute) if data.workers else read + compute, validation)
