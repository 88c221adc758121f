"""layers, geometry and parameters of networks; classes of weights"""

from __future__ import annotations

import argparse

from ..arguments import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a weights file, or a backbone's name: vgg16, efficientnet_lite0, torchvision:resnet50 ...",
    )
    parser.add_argument("--stride", type=int, help="for a name: 32, 16, 8 (default) or 4")
    parser.add_argument("--pad", help="for a name: same (default) or official")
    parser.add_argument("--classes", type=count, help="for a name (default: 21)")


def run(options: argparse.Namespace, _: list[str]) -> int:
    import torch
    from rich.console import Console
    from rich.text import Text

    from ..networks.backbones import BACKBONES, is_traced
    from ..networks.models import ModelConfig, build_model
    from ..networks.summary import network_table
    from ..text import shown
    from ..weights import load_weights

    console = Console()
    given = {
        name: getattr(options, name) for name in ("stride", "pad", "classes") if getattr(options, name) is not None
    }
    for name in options.models:
        if name in BACKBONES or is_traced(name):
            with torch.device("meta"):
                console.print(network_table(build_model(ModelConfig(name, **given))))
            continue
        if given:
            raise ValueError(f"{name}: --{next(iter(given))} is for backbones ({', '.join(BACKBONES)}), not for a file")
        weights = load_weights(name)
        preprocessing = weights.preprocessing
        console.print(network_table(weights.model))
        lines = {
            f"{task} classes".strip(): ", ".join(map(shown, meaning.classes)) for task, meaning in weights.tasks.items()
        }
        lines["input"] = (
            f"{preprocessing.channel_order}, mean {preprocessing.mean}, std {preprocessing.std}, "
            f"scale {preprocessing.scale:g}"
        )
        if preprocessing.levels is not None:
            lines["16 bits"] = "values {:g} and {:g} are taken as 0 and 255".format(*preprocessing.levels)
        lines |= weights.extra
        for key, value in lines.items():
            console.print(Text(f"{shown(key):<14} {shown(value)}"))  # names are no markup
    return 0
