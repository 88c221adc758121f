"""``python -m fcn_kernels.compile_report``: what the compilers make of the GPU kernels, without a GPU.

One line for each kernel, configuration and target: registers, spills, shared memory, memory accesses by width and how
many of them are narrower than promised.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from . import compile_cuda
from .backend import INTERPRETED, why_not
from .launch import CompileCase
from .ptx import accesses, in_words

TARGETS = (80, 90)  # compute capabilities that the Triton kernels are compiled for: A100, H100 and H200


@dataclass(frozen=True)
class Report:
    """What one kernel takes on one target.

    Attributes:
        spills: bytes of registers that go to memory.
        shared: bytes of shared memory of a block.
        loads, stores: how many instructions access so many bytes of global memory for a thread, as ``ptx.in_words``.
        narrow: how many of them access less than the kernel or, of Triton's, the launch promises.
    """

    backend: str
    operator: str
    kernel: str
    configuration: str
    target: str
    registers: int
    spills: int
    shared: int
    loads: str
    stores: str
    narrow: int
    ptx: str

    @property
    def keeps_promise(self) -> bool:
        return self.spills == 0 and self.narrow == 0


def triton_cases(operator: str | None = None) -> list[CompileCase]:
    """The launches of ``compile_cases`` of every operator, or of one, each once."""
    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("ops/*/triton.py"))
    cases = {
        str(case): case
        for folder in folders
        if operator in (None, folder)
        for case in importlib.import_module(f"fcn_kernels.ops.{folder}.triton").compile_cases()
    }
    return list(cases.values())


def compile_triton(case: CompileCase, capability: int) -> Report:
    """Compile ``case`` for a GPU of that compute capability. Raises whatever Triton raises where it cannot."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = case.kernel.arg_names
    types = [(name, case.signature.get(name)) for name in names]
    source = ASTSource(
        fn=case.kernel,
        signature={name: kind if isinstance(kind, str) else "constexpr" for name, kind in types},
        constexprs={(names.index(name),): value for name, value in case.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in case.aligned},
    )
    options: dict[str, Any] = {name: value for name, value in case.config.items() if name.startswith("num_")}
    options["enable_fp_fusion"] = True  # as launches do
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = compiled.asm["ptx"]
    registers, spills = _resources(compiled.asm["cubin"])
    loads, stores = accesses(ptx, "ld"), accesses(ptx, "st")
    # Neighbours are read and everything is written 16 bytes at a time; what else is read may come as it will.
    narrow = (stores.total() - stores[16] + (loads[16] == 0)) if case.vectorised else 0
    version = re.search(r"^\.version (\S+)", ptx, re.MULTILINE)
    return Report(
        "triton",
        case.operator,
        case.kernel.__name__,
        _words({**case.key, **case.config}),
        f"sm_{capability}",
        registers,
        spills,
        compiled.metadata.shared,
        in_words(loads),
        in_words(stores),
        narrow,
        version[1] if version else "?",
    )


def _words(parameters: dict[str, Any]) -> str:
    """``float16 CLAMP ROWS=8``: flags that are set, words, numbers with their names."""
    words = (
        name if value is True else str(value) if isinstance(value, str) else f"{name}={value}"
        for name, value in parameters.items()
        if value is not False and value is not None
    )
    return " ".join(words)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of local memory, which is where spills go, from the assembled kernel."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (re.search(rf"{name}:(\d+)", said) for name in ("REG", "STACK", "LOCAL"))
    if registers is None or stack is None or local is None:
        raise RuntimeError(f"cuobjdump does not say what the kernel takes: {said}")
    return int(registers[1]), int(stack[1]) + int(local[1])


def quick(cases: list[CompileCase]) -> list[CompileCase]:
    """The first case of every kernel, and the first of those that promise vectors."""
    chosen = {(case.operator, case.kernel.__name__, case.vectorised): case for case in reversed(cases)}
    return [case for case in cases if case in chosen.values()]


def triton_reports(cases: list[CompileCase], progress: bool = False) -> Iterator[Report]:
    """Every case on every target."""
    total = len(cases) * len(TARGETS)
    with tqdm(total=total, desc="triton", unit="kernel", disable=not progress, dynamic_ncols=True) as bar:
        for case in cases:
            for capability in TARGETS:
                yield compile_triton(case, capability)
                bar.update()


def cuda_reports(operator: str | None = None, progress: bool = False) -> Iterator[Report]:
    """Every CUDA kernel in every instance that its source makes, on every target."""
    names = [name for name in compile_cuda.operators() if operator in (None, name)]
    if not names:  # which would stand for all of them
        return
    files = compile_cuda.compile_kernels(names=names)
    total = len(names) * len(compile_cuda.NUMBERS)
    for file in tqdm(files, total=total, desc="nvcc", unit="file", disable=not progress, dynamic_ncols=True):
        for kernel in file:
            name, _, configuration = kernel.kernel.partition("<")
            yield Report(
                "cuda", kernel.operator, name, configuration.removesuffix(">"), kernel.target, kernel.registers,
                kernel.spills + kernel.stack, kernel.shared, in_words(kernel.loads), in_words(kernel.stores),
                kernel.narrow, kernel.ptx,
            )  # fmt: skip


def why_not_triton() -> str | None:
    """The reason that the Triton kernels cannot be compiled here, or None if they can."""
    if INTERPRETED:
        return "TRITON_INTERPRET is set, and the interpreter compiles nothing: unset it"
    return why_not("triton")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fcn_kernels.compile_report", description=__doc__)
    parser.add_argument("--backend", choices=("triton", "cuda"), help="only this backend's kernels")
    parser.add_argument("--operator", help="only this operator's kernels")
    parser.add_argument("--quick", action="store_true", help="Triton: one or two configurations of each kernel")
    chosen = parser.parse_args(arguments)
    reasons = {"triton": why_not_triton(), "cuda": compile_cuda.why_not()}
    found: list[Report] = []
    for backend, reason in reasons.items():
        if chosen.backend not in (None, backend):
            continue
        if reason is not None and chosen.backend is not None:
            parser.error(f"the {backend} kernels cannot be compiled: {reason}")
        if reason is not None:
            print(f"without the {backend} kernels: {reason}", file=sys.stderr)
        elif backend == "triton":
            cases = triton_cases(chosen.operator)
            found += triton_reports(quick(cases) if chosen.quick else cases, progress=sys.stderr.isatty())
        else:
            found += cuda_reports(chosen.operator, progress=sys.stderr.isatty())
    if not found:
        parser.error(f"there are no kernels to compile{f' of {chosen.operator}' if chosen.operator else ''}")
    print_table(found)
    broken = [report for report in found if not report.keeps_promise]
    narrow = sum(report.narrow for report in found)
    print(f"{len(found)} kernels, {len(broken)} break promises; {narrow} accesses are narrower than promised")
    return 1 if broken else 0


def print_table(found: list[Report]) -> None:
    words = ("backend", "operator", "kernel", "configuration", "target")
    numbers = ("registers", "spills", "shared", "loads", "stores", "narrow", "ptx")
    table = Table(
        box=SIMPLE,
        caption="spills and shared memory in bytes; 16x24: 24 instructions that access 16 bytes for a thread",
    )
    for name in words:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    for report in found:
        style = None if report.keeps_promise else "bold red"
        table.add_row(*(str(getattr(report, name)) for name in (*words, *numbers)), style=style)
    # A file gets one line for each kernel, however long.
    Console(width=None if sys.stdout.isatty() else 400).print(table)


if __name__ == "__main__":
    sys.exit(main())
