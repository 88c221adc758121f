"""Compare the speed and memory of fcn_kernels with what people write in PyTorch.

    python bench/run.py                        # a minute: small cases
    python bench/run.py --case all --out bench/results/cpu.json --plot bench/results

How a number is made: bench/timing.py (time), bench/memory.py (memory), bench/cases/ (what is compared, and the floor).
Exit status: 0, 1 if a result was wrong or an own backend failed, 2 for a wrong argument.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
if __name__ == "__main__":
    for emulated in ("FCN_KERNELS_EMULATE", "TRITON_INTERPRET"):  # a GPU's kernels in software: to test, not to time
        os.environ.pop(emulated, None)

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

from bench import cases, machine, measure, results, tables  # noqa: E402
from fcn_kernels import backend as kernels  # noqa: E402


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    operators = [module.OPERATOR for module in cases.modules()]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    # --op A B and --op A --op B are the same.
    several: dict[str, Any] = {"nargs": "+", "action": "extend", "metavar": "NAME"}
    parser.add_argument("--op", choices=operators, help=", ".join(operators), **several)
    parser.add_argument("--backend", choices=kernels.BACKENDS, help="default: every one here but reference", **several)
    parser.add_argument("--case", choices=("small", "all"), default="small", help="small: a minute, no torch.compile")
    parser.add_argument("--allocator", choices=("default", "tuned", "both"), help="CPU; default: both")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the results here")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write plots here")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # measure in this process, write here
    parser.add_argument("--no-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.op = options.op or operators
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device here")
    if options.device == "cuda" and options.allocator not in (None, "default"):
        parser.error("--allocator is about the memory of the CPU; leave it out with --device cuda")
    for name in options.backend or ():
        reason = kernels.why_not(name, options.device)
        if reason is not None:
            parser.error(f"--backend {name} cannot run here: {reason}")
    return options


def backends(options: argparse.Namespace) -> tuple[str, ...]:
    if options.backend:
        return tuple(options.backend)
    return tuple(b for b in kernels.BACKENDS if b != "reference" and kernels.why_not(b, options.device) is None)


def chosen_cases(options: argparse.Namespace) -> tuple[list[cases.Case], dict[str, str]]:
    """The cases to measure, and the operators that are absent with the reason."""
    chosen, absent = [], {}
    for module in cases.modules():
        if module.OPERATOR not in options.op:
            continue
        if (reason := cases.absence(module)) is not None:
            absent[module.OPERATOR] = reason
        else:
            chosen += [case for case in module.CASES if case.small or options.case == "all"]
    return chosen, absent


def work(options: argparse.Namespace) -> None:
    """Measure in this process under the allocator that it was started with."""
    chosen, _ = chosen_cases(options)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{options.allocator} allocator", total=len(chosen))

        def done(row: dict[str, Any]) -> None:
            line = tables.summary_line(row, options.allocator)
            progress.console.print(line, highlight=False, markup=False, soft_wrap=True)
            progress.advance(task)

        device = torch.device(options.device)
        measured = measure.measure(chosen, device, backends(options), options.case, not options.no_memory, done)
    options.worker.write_text(json.dumps(measured))


def measure_under(allocator: str, options: argparse.Namespace, folder: Path, memory: bool) -> dict[str, Any]:
    """Run this script again as a worker in a process with that allocator (it is chosen when a process starts)."""
    out = folder / f"{allocator}.json"
    command = [sys.executable, __file__, "--worker", str(out), "--allocator", allocator, "--device", options.device]
    command += ["--case", options.case, "--op", *options.op, *([] if memory else ["--no-memory"])]
    command += ["--backend", *options.backend] if options.backend else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    if allocator == "tuned":
        environment.update(machine.tuned_environment())
    subprocess.run(command, env=environment, check=True)
    return dict(json.loads(out.read_text()))


def fail(message: str, status: int) -> NoReturn:
    print(f"bench/run.py: {message}", file=sys.stderr)
    sys.exit(status)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.worker is not None:
        return work(options)
    chosen, absent = chosen_cases(options)
    if not chosen:
        fail("nothing to measure: " + "; ".join(absent.values()), 2)
    if not backends(options):
        reasons = "; ".join(f"{b}: {kernels.why_not(b, options.device)}" for b in kernels.BACKENDS if b != "reference")
        print(f"No compiled backend runs here, so only PyTorch is measured ({reasons}).", file=sys.stderr)
    allocators = ["default", "tuned"] if options.allocator in (None, "both") else [options.allocator]
    if options.device == "cuda":
        allocators = ["default"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            measured = {
                name: measure_under(name, options, Path(folder), memory=name == allocators[0]) for name in allocators
            }
        except RuntimeError as error:
            fail(str(error), 2)
        except subprocess.CalledProcessError as error:
            fail(f"the measuring process ended with status {error.returncode} (its message is above)", 1)
        except KeyboardInterrupt:
            fail("interrupted; nothing was written", 130)
    found = results.merge(machine.describe(torch.device(options.device)), measured, absent)
    if options.out is not None:
        results.save(options.out, found)
    console = Console(width=None if sys.stdout.isatty() else 150)
    for table in tables.terminal_tables(found):
        console.print(table)
    for note in tables.notes(found):
        console.print(note, highlight=False, markup=False)
    if options.plot is not None:
        from bench import plots

        for path in plots.draw(found, options.plot):
            console.print(f"wrote {path}", highlight=False)
    sys.exit(1 if results.serious(found) else 0)


if __name__ == "__main__":
    main()
