"""train by a recipe or on a folder of data, or resume a run
On a folder of images and masks everything is chosen from what it holds and from how fast this machine is. Every key of
a recipe can be overridden: --stages.epochs [20,20,20] --data.root FOLDER. 'fcn train --keys' lists them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..recipes.presets import PRESETS

OVERRIDES = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe",
        nargs="?",
        help="a folder of images and masks, a recipe's YAML file, or the name of a recipe that comes along, such as "
        "camvid_fcn8s_small",
    )
    parser.add_argument(
        "--minutes", type=float, help="for a folder of data: about how long training may take (default: 10)"
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

    if options.keys:
        return _list_keys()
    if (options.recipe is None) == (options.resume is None) or (options.resume and options.preset):
        raise ConfigError("give a folder of data or a recipe, or --resume RUN_DIR; overrides may follow")
    on_data = options.recipe is not None and Path(options.recipe).is_dir()
    if options.minutes is not None and not on_data:
        raise ConfigError("--minutes is for a folder of data; a recipe says epochs")

    from pytorch_lightning.utilities import rank_zero_only

    from ..recipes.config import load_recipe
    from ..training.automatic import recipe_for
    from ..training.run import resume, train
    from ..training.stage import LAST_FILE

    say = rank_zero_only(print)  # one of several processes speaks
    if options.resume:
        run_dir = options.resume
    else:
        if on_data and options.preset:
            raise ConfigError("--preset is for recipes; on a folder of data the solver is chosen")
        planned = (
            recipe_for(Path(options.recipe), 10.0 if options.minutes is None else options.minutes, overrides, say)
            if on_data
            else None
        )
        recipe = planned or load_recipe(options.recipe, overrides, options.preset)
        run_dir = recipe.trainer.run_dir
    try:
        weights = resume(run_dir, overrides) if options.resume else train(recipe, draw=True)
    except Interrupted:
        if any(Path(run_dir).expanduser().glob(f"*/{LAST_FILE}")):
            say(f"\nInterrupted; the checkpoint is written. Go on with: fcn train --resume {run_dir}", file=sys.stderr)
        else:
            say("\nInterrupted; nothing was trained yet.", file=sys.stderr)
        raise
    rank_zero_only(_show_end)(weights)
    return 0


def _show_end(weights: Path) -> None:
    from rich.console import Console

    from ..evaluation.tables import class_table, metrics_table
    from ..training.ending import write_page

    page, metrics, meaning = write_page(weights.parent)
    console = Console()
    console.print(metrics_table({weights.parent.name: metrics}, title="Validation images"))
    console.print(class_table({weights.parent.name: metrics}, meaning.classes))
    print(f"Best weights: {weights}")
    print(f"On a page: {page}")


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
