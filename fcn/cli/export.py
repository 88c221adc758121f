"""write a network for other programs: ONNX, torch.export
The file takes images as they are, uint8 RGB [N, H, W, 3] of any size, and gives labels, uint8 [N, H, W].
"""

from __future__ import annotations

import argparse
from pathlib import Path

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", help="a run folder, or a .safetensors file of this program")
    parser.add_argument("--to", required=True, choices=SUFFIXES, help="onnx: standard operators; torch: a .pt2 program")
    parser.add_argument("--out", metavar="FILE", help="(default: WEIGHTS with the suffix .onnx or .pt2)")
    parser.add_argument("--confidence", action="store_true", help="give the probability of each label too")
    parser.add_argument("--license", default="", metavar="TEXT", help="goes along in the file's metadata")


def run(options: argparse.Namespace, _: list[str]) -> int:
    from ..errors import ConfigError
    from ..export.onnx import write_onnx
    from ..export.program import write_program
    from ..files import check_outputs
    from ..weights import load_weights, weights_file
    from ..weights.hub import is_address

    suffix = SUFFIXES[options.to]
    if options.out is None and is_address(options.weights):
        raise ConfigError(f"{options.weights}: say where the file shall be: --out FILE{suffix}")
    file = weights_file(options.weights)
    target = Path(options.out or file.with_suffix(suffix))
    if target.suffix != suffix:
        raise ConfigError(f"{target}: the file to write must end in {suffix}")
    if target.exists() and options.out is None:
        raise ConfigError(f"{target}: a file is there; --out {target} replaces it")
    check_outputs([target], [file])
    weights = load_weights(file)
    write = {"onnx": write_onnx, "torch": write_program}[options.to]
    write(target, weights, confidence=options.confidence, license=options.license)
    smallest = weights.model.smallest_image
    sizes = "any size" if smallest == 1 else f"at least {smallest} x {smallest} pixels"
    seen = weights.preprocessing.longest_side
    if seen is not None:
        print(
            f"The graph labels images as it is given them; this network is meant for {seen} pixels on the longer side."
        )
    print(f"Written: {target}, {target.stat().st_size / 1e6:.1f} MB; images uint8 [N, H, W, 3], RGB, {sizes}")
    return 0
