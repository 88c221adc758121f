"""put weights and a model card on the Hugging Face Hub
What is there already stays in the repository's history, and its card stays as it is. 'fcn predict hf://user/model' and
fcn.Predictor("hf://user/model") read it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", help="a run folder, or a .safetensors file of this program")
    parser.add_argument("repository", help="user/model; made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it a private one")
    parser.add_argument("--license", default="", metavar="NAME", help="of the Hub's list: cc-by-4.0, bsd-3-clause ...")
    parser.add_argument("--data", default="", metavar="TEXT", help="what the network was trained on")
    parser.add_argument("--metrics", metavar="FILE.json", help="what 'fcn evaluate --out' wrote")
    parser.add_argument("--replace-card", action="store_true", help="write the model card anew")


def run(options: argparse.Namespace, _: list[str]) -> int:
    from ..errors import ConfigError
    from ..weights import load_weights, weights_file
    from ..weights.card import model_card, read_metrics
    from ..weights.hub import is_address, uploaded

    if is_address(options.weights):
        raise ConfigError(f"{options.weights}: a file on this machine is wanted")
    file = weights_file(options.weights)
    weights = load_weights(file)
    metrics = read_metrics(Path(options.metrics)) if options.metrics else None
    given = {"license": options.license, "data": options.data, "metrics": metrics}
    card = model_card(weights, options.repository, **given)
    where = uploaded(file, card, options.repository, private=options.private, replace_card=options.replace_card)
    print(f"Written: {where}")
    return 0
