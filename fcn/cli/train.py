"""train by a recipe, or resume a run
Every key of the recipe can be overridden: --stages.epochs [20,20,20] --data.root FOLDER. 'fcn train --keys' lists them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..recipes.presets import PRESETS

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", nargs="?", help="YAML file, or the name of a recipe that comes along, such as camvid_fcn8s_small"
    )
    parser.add_argument(
        "--resume",
        metavar="RUN_DIR",
        help="go on with an interrupted run, or with a finished one for more --stages.epochs; the data may have moved "
        "(--data.root), and what else may change, a message lists",
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), help="; ".join(f"{k}: {v}" for k, v in PRESETS.items()))
    parser.add_argument("--keys", action="store_true", help="list every key of a recipe")


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    from ..errors import ConfigError, Interrupted

    if not options.keys and (
        (options.recipe is None) == (options.resume is None) or (options.resume and options.preset)
    ):
        raise ConfigError("give a recipe, or --resume RUN_DIR; overrides may follow")

    from pytorch_lightning.utilities import rank_zero_only

    from ..recipes.config import load_recipe
    from ..training.run import resume, train
    from ..training.stage import LAST_FILE

    say = rank_zero_only(print)  # one of several processes speaks
    if options.keys:
        return _list_keys()
    if options.resume:
        run_dir = options.resume
    else:
        recipe = load_recipe(options.recipe, overrides, options.preset)
        run_dir = recipe.trainer.run_dir
    try:
        weights = resume(run_dir, overrides) if options.resume else train(recipe)
    except Interrupted:
        if any(Path(run_dir).expanduser().glob(f"*/{LAST_FILE}")):
            say(f"\nInterrupted; the checkpoint is written. Go on with: fcn train --resume {run_dir}", file=sys.stderr)
        else:
            say("\nInterrupted; nothing was trained yet.", file=sys.stderr)
        raise
    say(f"Best weights: {weights}")
    return 0


def _list_keys() -> int:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from ..recipes.keys import keys

    console = Console()
    for key in keys():
        console.print(Text.assemble((f"--{key.name} ", "bold"), f"{key.default}   ({key.choices})"))
        console.print(Padding(Text(key.description), (0, 4)))
    return 0
