"""train by a recipe, or resume a run
Every key of the recipe can be overridden: --stages.epochs [20,20,20] --data.root FOLDER. 'fcn train --keys' lists them.
"""

from __future__ import annotations

import argparse
import sys

from ..recipes.presets import PRESETS

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="YAML file, such as recipes/camvid_fcn8s_small.yaml")
    parser.add_argument("--resume", metavar="RUN_DIR", help="go on with an interrupted run")
    parser.add_argument("--preset", choices=tuple(PRESETS), help="; ".join(f"{k}: {v}" for k, v in PRESETS.items()))
    parser.add_argument("--keys", action="store_true", help="list every key of a recipe")


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    from ..errors import ConfigError, Interrupted

    if not options.keys and (
        (options.recipe is None) == (options.resume is None) or (options.resume and (overrides or options.preset))
    ):
        raise ConfigError("give a recipe (with overrides), or --resume RUN_DIR alone")

    from pytorch_lightning.utilities import rank_zero_only

    from ..recipes.config import load_recipe, recipe_help
    from ..training.run import resume, train

    say = rank_zero_only(print)  # one of several processes speaks
    if options.keys:
        print(recipe_help())
        return 0
    if options.resume:
        run_dir = options.resume
    else:
        recipe = load_recipe(options.recipe, overrides, options.preset)
        run_dir = recipe.trainer.run_dir
    try:
        weights = resume(run_dir) if options.resume else train(recipe)
    except Interrupted:
        say(f"\nInterrupted; the checkpoint is written. Go on with: fcn train --resume {run_dir}", file=sys.stderr)
        raise
    say(f"Best weights: {weights}")
    return 0
