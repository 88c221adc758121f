"""``fcn train FOLDER``: a run from a folder of images and masks, without a recipe."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..data import KINDS, SegmentationDataset, recognize
from ..data.folders import OTHER_NAMES, SPLITS
from ..data.listing import files_in
from ..data.survey import described, survey
from ..errors import ConfigError, DataError, MissingSplitError
from ..recipes.automatic import LONGEST_SIDE, Plan, plan
from ..recipes.config import RECIPE_FILE, DataConfig, Recipe, load_recipe, save_recipe, value_of
from ..weights.packages import packaged
from .speed import measured

FEWEST = 8
"""Images; a split of fewer says nothing about others."""


def recipe_for(root: Path, minutes: float, overrides: Sequence[str], say: Callable[[str], None]) -> Recipe:
    """The recipe of ``plan_for``, written to the run's folder; ``--key.sub value`` pairs have the last word.

    Raises ``ConfigError`` for minutes that are none, a folder that is a run's, or one for the run that is taken."""
    if not 0 < minutes < math.inf:
        raise ConfigError(f"minutes must be above 0 and finite, got {minutes:g}")
    if (root / RECIPE_FILE).is_file():
        raise ConfigError(f"{root}: a run's folder; to go on with it: fcn train --resume {root}")
    given = value_of("trainer.run_dir", overrides)
    planned = plan_for(root, minutes, Path(given) if given else None, say)
    run_dir = Path(planned.recipe.trainer.run_dir).expanduser()
    if (run_dir / RECIPE_FILE).exists():
        raise ConfigError(
            f"trainer.run_dir: {run_dir} already holds a run; go on with 'fcn train --resume {run_dir}', or give "
            "another folder"
        )
    save_recipe(planned.recipe, run_dir / RECIPE_FILE)
    return load_recipe(run_dir / RECIPE_FILE, overrides)


def plan_for(root: Path, minutes: float, run_dir: Path | None, say: Callable[[str], None]) -> Plan:
    """Look at the data in ``root``, measure this machine, and plan a run of about ``minutes``; ``say`` gets a line for
    each thing that was understood or chosen. Raises ``DataError`` for data that cannot be trained on."""
    kind = recognize(root)
    splits = KINDS[kind].splits
    data = DataConfig(kind, root=str(root), train_split=splits[0], val_split=splits[1], test_split=splits[-1])
    if kind != "folder":
        say(f"{root}: recognized as {kind} data")
    data, train_set, val_set = _with_splits(_divided(data, say), say)
    if len(train_set) + len(val_set) < FEWEST:
        raise DataError(
            f"{root}: {len(train_set)} images to train on and {len(val_set)} to validate, {FEWEST} are the least"
        )
    first = next(iter(train_set.tasks.values()))  # of several tasks, whose images are the same
    found = survey(first, LONGEST_SIDE)
    if found.largest > LONGEST_SIDE:
        data = replace(data, longest_side=LONGEST_SIDE)
    for line in described(found, first.classes):
        say(line)
    say(f"{len(val_set)} further images ({data.val_split}) say which weights are best")
    result = plan(
        data,
        found,
        str(run_dir or numbered(Path("runs") / root.resolve().name)),
        minutes=minutes,
        knows_images=_installed("efficientnet_lite0"),
        workers=min(1, (os.cpu_count() or 1) - 1),
        measured=partial(measured, train_set=train_set, val_set=val_set),
    )
    for reason in result.reasons:
        say(reason)
    say(f"about {result.minutes:.1f} minutes, in {result.recipe.trainer.run_dir}")
    return result


def _divided(data: DataConfig, say: Callable[[str], None]) -> DataConfig:
    """Of images without splits, how they are divided: by chance, or where that would tear series apart, by name."""
    root = Path(data.root or "")
    folder = root / data.images
    if data.kind != "folder" or not folder.is_dir() or _has_splits(root, folder):
        return data
    stems = list(files_in(folder))
    series = {re.sub(r"\d+$", "", stem) for stem in stems}
    parts = "80 % to train on, 10 % to validate, 10 % kept apart"
    if 2 * len(series) > len(stems):
        say(f"no splits: {parts}, by a hash of their names")
        return replace(data, split_seed=0)
    say(f"no splits: {parts}, in blocks by name, since names are numbered and neighbors may be alike")
    return data


def _has_splits(root: Path, folder: Path) -> bool:
    names = (*SPLITS, *(other for others in OTHER_NAMES.values() for other in others))
    return any((root / f"{name}.txt").exists() or (folder / name).is_dir() for name in names)


def _with_splits(
    data: DataConfig, say: Callable[[str], None]
) -> tuple[DataConfig, SegmentationDataset, SegmentationDataset]:
    """The splits that there are; without one for validation that of the test."""
    train_set = data.dataset(data.train_split)
    try:
        val_set = data.dataset(data.val_split)
    except MissingSplitError:
        data = replace(data, val_split=data.test_split)
        val_set = data.dataset(data.val_split)
        say("there is no split for validation: test images say which weights are best, so their scores flatter")
        return data, train_set, val_set
    try:
        data.dataset(data.test_split)
    except MissingSplitError:
        data = replace(data, test_split=data.val_split)
    return data, train_set, val_set


def numbered(folder: Path) -> Path:
    """``folder``, or the first of ``folder-2``, ``folder-3`` ... that does not exist."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free


def _installed(backbone: str) -> bool:
    try:
        packaged(backbone)
    except FileNotFoundError:
        return False
    return True
