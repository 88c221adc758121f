"""``python -m fcn_kernels.tune``: measures configurations of the Triton kernels on this GPU and writes its table.

Each operator runs on shapes of FCN's heads and of common segmentation networks, both passes, in every dtype and layout.
The launches say which kernels they make, and with which keys; for each, neighbours of its heuristic are tried.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import fcn_kernels

from . import configs
from .backend import why_not
from .configs import Config, Entry
from .launch import CompileCase, record

ROUNDS = 20  # of which the median counts
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)
SHAPES = ((1, 21, 64, 64), (16, 21, 64, 64), (8, 150, 64, 64), (8, 256, 128, 128))


def candidates(base: Config) -> Iterator[Config]:
    """``base``, and what halving and doubling each block size and the number of warps makes of it."""
    choices = {
        name: (value // 2, value, value * 2) if name.isupper() or name == "num_warps" else (value,)
        for name, value in base.items()
    }
    for values in itertools.product(*choices.values()):
        found = dict(zip(choices, values, strict=True))
        if min(found.values()) >= 1 and found.get("num_warps", 1) <= 16:
            yield found


def milliseconds(run: Callable[[], object], flush: torch.Tensor) -> float:
    """Median time of ``run`` with cold caches. Raises what ``run`` raises."""
    run()
    times = []
    for _ in range(ROUNDS):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return float(statistics.median(times))


def best(case: CompileCase, run: Callable[[], object], flush: torch.Tensor) -> Config:
    """The fastest configuration of the kernel of ``case`` in ``run``; those that do not compile are passed over."""
    times: list[tuple[float, Config]] = []
    for candidate in candidates(case.config):
        with configs.forced(case.operator, case.kernel.__name__, candidate):
            try:
                times.append((milliseconds(run, flush), candidate))
            except Exception as error:
                tqdm.write(f"{case.operator} {case.kernel.__name__} {candidate}: {error}", file=sys.stderr)
    if not times:
        raise RuntimeError(f"{case.operator}: no configuration of {case.kernel.__name__} runs")
    return min(times, key=lambda pair: pair[0])[1]


def merge(old: list[Entry], new: list[Entry]) -> list[Entry]:
    """Entries of both; where two are for the same kernel and key, the new one."""

    def identity(entry: Entry) -> str:
        return json.dumps([entry["operator"], entry["kernel"], entry["key"]], sort_keys=True)

    return list({identity(entry): entry for entry in [*old, *new]}.values())


def write_table(path: Path, entries: list[Entry]) -> None:
    """One entry a line, written beside ``path`` and then put in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(f"[\n{lines}\n]\n")
    temporary.replace(path)


def passes(operator: str, device: torch.device) -> Iterator[tuple[str, Callable[[], object]]]:
    """(name, run) of forward and of backward, on shapes of FCN's heads and of common segmentation networks."""
    for dtype, layout, shape in itertools.product(DTYPES, LAYOUTS, SHAPES):
        x = torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
        name = f"{operator} {list(shape)} {dtype} {layout}"
        forward, leaves = _call(operator, x, layout)
        yield name, forward
        if operator != "upsample_argmax":  # which has no gradient
            out = forward().float().sum()  # type: ignore[attr-defined]
            yield f"{name} backward", functools.partial(torch.autograd.grad, out, leaves, retain_graph=True)


def _call(operator: str, x: Tensor, layout: torch.memory_format) -> tuple[Callable[[], object], list[Tensor]]:
    """A call of ``operator`` on ``x`` by the Triton backend, and the tensors that it has gradients for."""
    n, c, h, w = x.shape
    options: dict[str, Any] = {"backend": "triton"}
    arguments = [x]
    if operator in ("upsample_add", "conv_transpose_add"):
        if operator == "conv_transpose_add":
            arguments.append(torch.randn(c, 1, 4, 4, device=x.device, dtype=x.dtype).requires_grad_())
            options |= {"stride": 2, "crop": 1, "size": (2 * h, 2 * w)}
        skip = torch.randn(n, c, 2 * h, 2 * w, device=x.device, dtype=x.dtype).contiguous(memory_format=layout)
        arguments.append(skip.requires_grad_())
    elif operator == "dilated_conv2d":
        arguments.append(torch.randn(c, c, 3, 3, device=x.device, dtype=x.dtype).requires_grad_())
        options |= {"dilation": 2, "padding": 2}
    elif operator == "upsample_argmax":
        options["size"] = (8 * h, 8 * w)
    else:
        scale = 1 if operator == "cross_entropy" else 8
        target = torch.randint(0, c, (n, scale * h, scale * w), device=x.device)
        if operator == "upsample_region_sums":
            return lambda: torch.stack(fcn_kernels.upsample_region_sums(x, target, **options)), arguments
        return functools.partial(getattr(fcn_kernels, operator), x, target, **options), arguments
    return functools.partial(getattr(fcn_kernels, operator), *arguments, **options), arguments


def tune(operator: str, device: torch.device) -> Iterator[Entry]:
    """An entry for every kernel and key that the passes of ``operator`` launch."""
    flush = torch.empty(256 * 2**20, dtype=torch.uint8, device=device)  # more than the caches hold
    seen: list[CompileCase] = []
    total = len(DTYPES) * len(LAYOUTS) * len(SHAPES) * (1 if operator == "upsample_argmax" else 2)
    for name, run in tqdm(passes(operator, device), total=total, desc=operator, unit="pass", dynamic_ncols=True):
        with record() as cases:
            run()
        for case in cases:
            if not any(_same(case, other) for other in seen):
                seen.append(case)
                config = best(case, run, flush)
                tqdm.write(f"{name}: {case.kernel.__name__} {config}")
                yield {"operator": operator, "kernel": case.kernel.__name__, "key": case.key, "config": config}


def _same(a: CompileCase, b: CompileCase) -> bool:
    return (a.kernel.__name__, a.key) == (b.kernel.__name__, b.key)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fcn_kernels.tune", description=__doc__)
    parser.add_argument("--operator", help="only this operator; what the table says of others stays")
    parser.add_argument("--out", type=Path, default=configs.TABLES, help="folder of the table (the package's own)")
    chosen = parser.parse_args(arguments)
    reason = why_not("triton")
    if reason is None and not torch.cuda.is_available():
        reason = "tuning measures on an NVIDIA GPU, and torch finds none here"
    if reason is not None:
        parser.error(reason)
    operators = sorted(path.parent.name for path in Path(__file__).parent.glob("ops/*/triton.py"))
    if chosen.operator is not None and chosen.operator not in operators:
        parser.error(f"there are no Triton kernels of {chosen.operator}; there are those of {', '.join(operators)}")
    device = torch.device("cuda", torch.cuda.current_device())
    path = configs.table_path(torch.cuda.get_device_name(device), chosen.out)
    entries = configs.read_table(path) if path.exists() else []
    for operator in operators if chosen.operator is None else [chosen.operator]:
        entries = merge(entries, list(tune(operator, device)))
        write_table(path, entries)  # after each operator, so that an interruption loses one at most
    print(f"{path}: {len(entries)} configurations")


if __name__ == "__main__":
    main()
