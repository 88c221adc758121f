"""Models of other libraries under ``fuse`` and without: times, peak memory, and that results are equal.

    python -m bench.fuse_models                       # those that are installed; writes docs/fuse.md's table
    python -m bench.fuse_models --models SegFormer PSPNet --rounds 9 --no-table

Optional packages: transformers; torchvision; segmentation_models_pytorch; mmsegmentation with mmcv-lite 2.1, ftfy and
regex. Each model runs in a process of its own, both ways in turns on two threads, with the default allocator.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bench import libraries, machine, memory
from fcn_kernels import fuse

PAGE, RESULTS = machine.ROOT / "docs" / "fuse.md", machine.ROOT / "bench" / "results" / "fuse_models.json"
BEGIN, END = "<!-- fuse:begin -->", "<!-- fuse:end -->"
DISTRIBUTIONS = ("transformers", "torchvision", "segmentation_models_pytorch", "mmsegmentation")
WAYS = ("PyTorch", "fuse")


@dataclass
class Row:
    """Of one model. Pairs are of PyTorch and of ``fuse``; seconds and bytes."""

    model: str
    library: str
    classes: int
    step: list[float]  # a training step: loss and all gradients
    step_memory: list[int]
    labels: list[float]  # from images to label maps
    labels_memory: list[int]
    loss: list[float]
    gradient: float  # norm of the difference of all gradients, over their norm
    equal: float  # share of labels
    tie: float  # where labels differ: how far the scores are apart, over the largest score. NaN where none differ.
    fused: list[str]
    made: list[str]


def measure(name: str, size: int, batch: int, rounds: int) -> Row:
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    torch.manual_seed(0)
    library, build = libraries.MODELS[name]
    model = build()
    images = torch.randn(batch, 3, size, size)
    target = torch.randint(0, model.classes, (batch, size, size))
    parameters = list(model.module.parameters())

    def step() -> Tensor:
        torch.manual_seed(1)  # the same dropout
        model.module.zero_grad()
        loss = model.loss(images, target)
        loss.backward()
        return loss.detach()

    def label() -> Tensor:
        with torch.inference_mode():
            return model.labels(images)

    def both(call: Callable[[], Tensor]) -> dict[str, Callable[[], Tensor]]:
        def fused() -> Tensor:
            with fuse():
                return call()

        return dict(zip(WAYS, (call, fused), strict=True))

    model.module.train()
    losses, gradients = [], []
    fuse.clear()
    for call in both(step).values():
        losses.append(call().item())
        gradients.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    step_times = _times(both(step), rounds)
    step_memory = [memory.peak_of(call) for call in both(step).values()]
    model.module.eval()
    maps = [call() for call in both(label).values()]
    report = fuse.report()
    equal = (maps[0] == maps[1]).double().mean().item()
    return Row(
        name,
        library,
        model.classes,
        step_times,
        step_memory,
        _times(both(label), rounds),
        [memory.peak_of(call) for call in both(label).values()],
        losses,
        ((gradients[0] - gradients[1]).norm() / gradients[0].norm()).item(),
        equal,
        _tie(model, images, maps) if equal < 1 else float("nan"),
        sorted(report.fused),
        sorted({what.rpartition(", at ")[0] for what in report.made}),
    )


def _times(calls: dict[str, Callable[[], Tensor]], rounds: int) -> list[float]:
    """Medians of both, in turns, each first in every other round. They have been called before."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls)[:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds.values()]


def _tie(model: libraries.Model, images: Tensor, maps: list[Tensor]) -> float:
    """How far the scores of differing labels are apart, in PyTorch, over the largest score."""
    kept: list[Tensor] = []
    argmax = torch.Tensor.argmax

    class Keep(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in (argmax, torch.argmax):
                kept.append(args[0])
            return func(*args, **(kwargs or {}))

    with torch.inference_mode(), Keep():
        model.labels(images)
    scores = torch.cat([s if s.dim() == 4 else s[None] for s in kept])
    differ = (maps[0] != maps[1]).reshape(len(images), *scores.shape[2:])
    mine, others = (scores.gather(1, m.reshape(differ.shape)[:, None])[:, 0] for m in maps)
    return ((mine - others).abs()[differ].max() / scores.abs().max()).item()


def table(rows: list[Row], size: int, batch: int) -> str:
    def pair(values: Sequence[float], scale: float) -> str:
        before, after = values
        return f"{before * scale:.0f} → {after * scale:.0f} ({before / after:.1f}x)"

    lines = [
        "| model (library), classes | training step, ms | its peak, MB "
        "| labels, ms | their peak, MB | gradient | labels equal |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        equal = "all" if row.equal == 1 else f"{100 * row.equal:.3f} %; else ties within {row.tie:.0e}"
        pairs = (pair(row.step, 1e3), pair(row.step_memory, 1e-6), pair(row.labels, 1e3), pair(row.labels_memory, 1e-6))
        name = f"{row.model} ({row.library}), {row.classes}"
        lines.append(f"| {' | '.join([name, *pairs])} | {row.gradient:.0e} | {equal} |")
    described = machine.describe(torch.device("cpu"))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in DISTRIBUTIONS if _installed(name))
    largest = max(abs(a - b) / abs(a) for a, b in (row.loss for row in rows))
    lines += [
        "",
        f"{batch} random images of {size} x {size}; medians, both in turns. {described['machine']['cpu']}, "
        f"two threads, torch {described['versions']['torch']}, {versions}; {described['date'][:10]}, commit "
        f"{described['commit']}. Losses differ by at most {largest:.0e} of themselves; *gradient* is the norm of the "
        "difference of all gradients over their norm.",
    ]
    return "\n".join(lines)


def _installed(name: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(name)
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[""], help="parts of names; all by default")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-table", action="store_true", help="print, and leave docs/fuse.md and the results alone")
    options = parser.parse_args()
    # Threads that wait for a processor in a loop hold up others where the machine is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    rows = []
    context = multiprocessing.get_context("spawn")
    for name, (library, _) in libraries.MODELS.items():
        if not any(part in name for part in options.models):
            continue
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                row = pool.submit(measure, name, options.size, options.batch, options.rounds).result()
            except Exception as error:  # a library that is absent or does not import must not end the others
                print(f"{name} ({library}): left out, {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
                continue
        print(json.dumps(asdict(row)), flush=True)
        rows.append(row)
    if not rows:
        parser.exit(1, "no model could be built\n")
    text = table(rows, options.size, options.batch)
    print(text)
    if not options.no_table:
        RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
