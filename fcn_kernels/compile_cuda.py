"""What nvcc makes of the CUDA kernels, without a GPU: registers, spills, shared memory, width of memory access."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from .ptx import accesses

SOURCES = Path(__file__).resolve().parents[1] / "csrc"
TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120")
NUMBERS = ("float", "bfloat16", "float16")  # every source is compiled once for each


@dataclass(frozen=True)
class Promise:
    """That a kernel accesses global memory in whole packs: ``numbers`` of its dtype, or 16 bytes where that is None.

    Attributes:
        kernels: a pattern for their names; its first group is the dtype.
        loads, stores: how many narrower ones there may be besides; None where nothing is promised.
        edges: a pack that lies across the end of a row is accessed number by number, beside the code for whole ones.
    """

    kernels: str
    loads: int | None
    stores: int | None
    edges: bool = False
    numbers: int | None = None


PROMISES = (
    # Beside gradients the losses of four pixels and two sums of the block; labels and weights are read one by one.
    Promise(r"cross_entropy_(?:registers|streamed)<([^,]+),.* 4>", None, 6, numbers=4),
    Promise(r"cross_entropy_pixels<([^,]+)>", None, 4),  # a loss, two sums, what a map's end leaves over
    Promise(r"(?:upsample_add_kernel|conv_transpose_add_walk)<([^,]+), WithinPixel.*", 0, 0, edges=True),
    Promise(
        r"(?:upsample_add_kernel|conv_transpose_add_walk|conv_transpose_add_numbers)<([^,>]+).*", None, 0, edges=True
    ),
    Promise(r"upsample_add_backward_pixels<([^,]+), [48]>", 0, 0),
    Promise(r"conv_transpose_add_backward_x_kernel<([^,]+), [48]>", 0, 0),
    Promise(r"conv_transpose_add_backward_weight_parts<([^,]+), [48]>", 0, None),
    Promise(r"convolve<([^,]+),.* true>", 16, 0, edges=True),  # the bias of a thread's columns is read one by one
    Promise(r"multiply_pixels<[^,]+, .*, ([^,]+), \d+, true>", 0, 0, edges=True),
)
_BYTES = {"float": 4, "__nv_bfloat16": 2, "__half": 2}


def narrow(kernel: str, loads: Counter[int], stores: Counter[int]) -> int:
    """How many instructions access less than ``PROMISES`` say, for the kernel of that name."""
    for promise in PROMISES:
        if (found := re.fullmatch(promise.kernels, kernel)) is None:
            continue
        size = _BYTES[found[1]]
        pack = promise.numbers * size if promise.numbers else 16
        count = 0
        for widths, allowed in ((loads, promise.loads), (stores, promise.stores)):
            if allowed is not None:
                less = sum(n for width, n in widths.items() if width < pack)
                beside = (widths.total() - less) * pack // size if promise.edges else 0
                count += max(0, less - allowed - beside) if less < widths.total() else less
        return count
    return 0


@dataclass(frozen=True)
class Resources:
    """One kernel on one target.

    Attributes:
        kernel: its name with template arguments.
        spills: bytes of registers stored to memory and loaded again.
        stack: bytes of a thread's local memory, spilled registers included.
        shared: bytes of a block's shared memory, as far as the compiler knows it.
        loads, stores: how many instructions access so many bytes of global memory for a thread.
        narrow: how many of them access less than promised.
        ptx: version of the intermediate language.
    """

    operator: str
    kernel: str
    target: str
    registers: int
    spills: int
    stack: int
    shared: int
    loads: Counter[int]
    stores: Counter[int]
    narrow: int
    ptx: str


def nvcc() -> str | None:
    """Path of the CUDA compiler: from ``CUDACXX``, PATH or CUDA's usual folder."""
    usual = Path("/usr/local/cuda/bin/nvcc")
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or (str(usual) if usual.exists() else None)


def why_not() -> str | None:
    """The reason that the kernels cannot be compiled here, or None if they can."""
    if nvcc() is None:
        return "no CUDA compiler: put nvcc on PATH, or set CUDACXX"
    if not SOURCES.is_dir():
        return f"no sources in {SOURCES}: run it in a checkout"
    return None


def operators() -> list[str]:
    """The operators that have CUDA kernels."""
    return sorted(path.parent.name for path in SOURCES.glob("*/cuda.cu"))


def compile_kernels(
    targets: Sequence[str] = TARGETS, names: Sequence[str] | None = None, jobs: int = 2
) -> Iterator[list[Resources]]:
    """Compile the kernels of every operator (or those of ``names``) for ``targets``, ``jobs`` files at a time.

    Gives the kernels of a file when it is done; files come in any order. Raises ``RuntimeError`` with the compiler's
    words if one does not compile, or if nothing can (``why_not``).
    """
    if (reason := why_not()) is not None:
        raise RuntimeError(reason)
    with ThreadPoolExecutor(jobs) as pool:
        files = [
            pool.submit(_compile, operator, number, targets) for operator in names or operators() for number in NUMBERS
        ]
        for file in as_completed(files):
            yield file.result()


def _compile(operator: str, number: str, targets: Sequence[str]) -> list[Resources]:
    architectures = [f"-gencode=arch={target.replace('sm', 'compute')},code={target}" for target in targets]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(nvcc()), "-std=c++17", "-O3", "-Xptxas", "-v", *architectures, f"-DFCN_NUMBER={number}", "--keep",
            "--keep-dir", folder, "-fatbin", str(SOURCES / operator / "cuda.cu"), "-o", f"{folder}/kernels.fatbin",
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{operator}/cuda.cu does not compile for {number}:\n{result.stderr[-4000:]}")
        return parse(operator, result.stderr, [path.read_text() for path in Path(folder).glob("*.ptx")])


_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<target>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def parse(operator: str, report: str, ptx: Sequence[str]) -> list[Resources]:
    """The kernels that a report of the assembler (``-Xptxas -v``) speaks of; ``ptx`` is what it assembled."""
    found = list(_KERNEL.finditer(report))
    names = _demangle([match["name"] for match in found])
    codes = {_word(".target", code): code for code in ptx}
    made = []
    for match, name in zip(found, names, strict=True):
        code = codes[match["target"]]
        body = code.split(f".entry {match['name']}(", 1)[1].split(".entry ", 1)[0]
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        loads, stores = accesses(body, "ld"), accesses(body, "st")
        made.append(
            Resources(
                operator,
                name,
                match["target"],
                int(match["registers"]),
                int(match["stores"]) + int(match["loads"]),
                int(match["stack"]),
                int(shared[1]) if shared else 0,
                loads,
                stores,
                narrow(name, loads, stores),
                _word(".version", code),
            )
        )
    return made


def _word(directive: str, ptx: str) -> str:
    found = re.search(rf"^{re.escape(directive)} ([\w.]+)", ptx, re.MULTILINE)
    return found[1] if found else ""


def _demangle(names: list[str]) -> list[str]:
    """C++ names without namespaces and parameters; as they are where no tool is there to do it."""
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None or not names:
        return names
    said = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    said = re.sub(r"fcn::|\(anonymous namespace\)::|<unnamed>::|\(int\)|\(bool\)|^void ", "", said, flags=re.MULTILINE)
    return [line.split("(")[0] for line in said.splitlines()]
