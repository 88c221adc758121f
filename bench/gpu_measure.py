"""Measures cases of the size of a GPU, the most valuable first, and writes each as a line of JSON when it is done.

    python bench/gpu_measure.py first OUT.jsonl --seconds 130
    python bench/gpu_measure.py second OUT.jsonl --rehearse     # small ones, the CUDA kernels in the emulator

Whatever ends it, the lines so far are whole. bench/gpu_report.py makes a table of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from bench import machine, measure  # noqa: E402
from bench.cases import (  # noqa: E402
    Case,
    conv_transpose_add,
    cross_entropy,
    dilated_conv2d,
    upsample_add,
    upsample_argmax,
    upsample_cross_entropy,
)
from fcn_kernels import backend as kernels  # noqa: E402

CALLS = ("first", "second")


def first(small: bool) -> list[Case]:
    """Every operator at a size that fills a GPU; ``small``: as many, at sizes that an emulator can do."""
    n, side = (1, 6) if small else (16, 64)
    full = 24 if small else 512
    planes, fine = ((1, 8, 8, 8), (16, 16)) if small else ((8, 256, 128, 128), (256, 256))
    loss = [upsample_cross_entropy.case((n, 21, side, side, 8), "int64", g, compile=False) for g in (True, False)]
    labels = [upsample_argmax.case((n, 21, side, side, 8), kind, compile=False) for kind in ("random", "blob")]
    entropy = [
        cross_entropy.case((1 if small else 8, 21, full, full), layout, gradient)
        for gradient in (True, False)
        for layout in ("NCHW", "channels_last")
    ]
    convolution = [] if small else [dilated_conv2d.case(d, torch.bfloat16) for d in (1, 12, 24)]
    maps = [
        *(upsample_add.case(planes, fine, gradient) for gradient in (False, True)),
        *(conv_transpose_add.case(planes, fine, 2, 1, gradient) for gradient in (False, True)),
    ]
    one = upsample_cross_entropy.case((1, 21, side, side, 8), "int64", True, compile=False)
    many = upsample_cross_entropy.case((1 if small else 8, 150, side, side, 8), "int64", True, compile=False)
    return [*loss, labels[0], entropy[0], *convolution, *maps, *entropy[1:], one, many, labels[1]]


def second(small: bool) -> list[Case]:
    """The headline cases beside torch.compile."""
    n, side, full = (1, 6, 24) if small else (16, 64, 512)
    return [
        upsample_cross_entropy.case((n, 21, side, side, 8), "int64", True),
        cross_entropy.case((1 if small else 8, 21, full, full), "NCHW", True),
    ]


def append(path: Path, line: dict[str, Any]) -> None:
    """One line, whole, and on the disk before anything else happens."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("call", choices=CALLS)
    parser.add_argument("out", type=Path, metavar="OUT.jsonl", help="lines are appended")
    parser.add_argument("--seconds", type=float, default=130, help="no case begins later")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU: FCN_KERNELS_EMULATE=1 for the CUDA kernels")
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here; --rehearse goes without")
    began, device = time.monotonic(), torch.device("cpu" if options.rehearse else "cuda")
    backends = [b for b in ("cuda", "triton") if kernels.why_not(b, device.type) is None]
    for backend in {"cuda", "triton"} - set(backends):
        print(f"without {backend}: {kernels.why_not(backend, device.type)}", flush=True)
    machine.use_one_seed_and_full_precision()
    append(options.out, {"kind": "machine", "call": options.call, **machine.describe(device)})
    if not options.rehearse:
        append(options.out, {"kind": "limit", "name": "bandwidth", "value": machine.copy_bandwidth(device)})
    cases, size = (first, "small") if options.call == "first" else (second, "all")
    failed = 0
    for case in cases(options.rehearse):
        if time.monotonic() - began > options.seconds:
            append(options.out, {"kind": "left out", "case": case.key})
            continue
        # A case that cannot run is a result as well: the others go on.
        try:
            row = measure.measure_case(case, device, backends, size, None)
        except Exception as error:
            row = {"operator": case.operator, "case": case.name, "mode": case.mode, "candidates": {}}
            row["error"] = f"{type(error).__name__}: {error}"
        failed += "error" in row or any("failed" in c for c in row["candidates"].values() if c["backend"])
        append(options.out, {"kind": "row", **row})
        print(f"{time.monotonic() - began:6.1f} s  {case.key}", flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
