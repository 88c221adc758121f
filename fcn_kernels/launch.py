"""How Triton kernels are launched, and how the same launches are recorded for the compile report and the tuner.

A launch names its compile-time parameters once: as the key of its configuration. So no configuration can be found for
one variant of a kernel and run with another, and what the report compiles is what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .configs import Config, Key, config

_POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int16: "*i16",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
_INT32 = range(-(2**31), 2**31)

# True makes every kernel compute offsets in 64 bits: for tests, on small data.
force_wide = False


@dataclass(frozen=True)
class CompileCase:
    """A kernel with the types of its arguments and its compile-time parameters: what it takes to compile it.

    Attributes:
        operator: the folder in ``fcn_kernels/ops``.
        kernel: the ``@triton.jit`` function.
        signature: the type of each argument of the launch, ``"*bf16"``, ``"i32"``, ``"fp32"``, ..., or its value where
            Triton makes that a constant: None and 1.
        key: what the configuration was looked up by; holds every compile-time parameter that ``config`` does not.
        config: block sizes, ``num_warps`` and, where it matters, ``num_stages``.
        aligned: pointers to multiples of 16 bytes, and integers that are multiples of 16.
        vectorised: the promise that global memory is written, and neighbours in it read, 8 bytes or more at a time.
    """

    operator: str
    kernel: Any
    signature: dict[str, str | int | None]
    key: Key
    config: Config
    aligned: tuple[str, ...] = ()
    vectorised: bool = False

    @property
    def constants(self) -> dict[str, Any]:
        """Every argument that is compile-time. Raises ``KeyError`` for one that neither key nor configuration holds."""
        given = {**self.key, **self.config}
        given.update((name, value) for name, value in self.signature.items() if not isinstance(value, str))
        return {name: given[name] for name in self.kernel.arg_names if not isinstance(self.signature.get(name), str)}


_recorded: list[CompileCase] | None = None


@contextmanager
def record() -> Iterator[list[CompileCase]]:
    """Within the context kernels are not run: the list that the context gives collects their launches.

    Launchers can then be called with tensors on the device ``"meta"``.
    """
    global _recorded
    before, _recorded = _recorded, []
    try:
        yield _recorded
    finally:
        _recorded = before


def launch(
    operator: str,
    kernel: Any,
    programs: Callable[[Config], int],
    arguments: dict[str, Any],
    key: Key,
    heuristic: Callable[..., Config],
    vectorised: bool = False,
) -> None:
    """Runs ``kernel`` on the device and stream of its tensors.

    Args:
        operator: the folder in ``fcn_kernels/ops``.
        programs: from the configuration to the number of programs.
        arguments: what is not compile-time, by name: tensors (None where there is none), int, float.
        key: ``dtype``, ``size`` (a ``bucket``), and every compile-time parameter but those of the configuration.
        heuristic: from the key to a configuration, where the GPU's table has none.
        vectorised: a promise; see ``CompileCase``.
    """
    device = next(value.device for value in arguments.values() if isinstance(value, Tensor))
    chosen = config(operator, kernel.__name__, heuristic, device, **key)
    if _recorded is not None:
        _recorded.append(_case(operator, kernel, arguments, key, chosen, vectorised))
        return
    names = {*kernel.arg_names, "num_warps", "num_stages"} - arguments.keys()
    constants = {name: value for name, value in {**key, **chosen}.items() if name in names}
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[(programs(chosen),)](**arguments, **constants, enable_fp_fusion=True)


def not_specialised(kernel: Any) -> frozenset[str]:
    """The arguments of a kernel, compiled or interpreted, whose values Triton does not look at."""
    if hasattr(kernel, "do_not_specialize"):
        return frozenset(kernel.do_not_specialize)
    return frozenset(kernel.kwargs["do_not_specialize"] or ())


def _case(
    operator: str, kernel: Any, arguments: dict[str, Any], key: Key, chosen: Config, vectorised: bool
) -> CompileCase:
    """As Triton specialises: None and 1 become constants; multiples of 16 are known to be such. Integers that a kernel
    names in ``do_not_specialize`` stay what they are."""
    signature: dict[str, str | int | None] = {}
    aligned = []
    plain = not_specialised(kernel)
    for name, value in arguments.items():
        if value is None or (isinstance(value, int) and value == 1 and name not in plain):
            signature[name] = value
        elif isinstance(value, Tensor):
            signature[name] = _POINTERS[value.dtype]
            if value.device.type == "meta" or value.data_ptr() % 16 == 0:
                aligned.append(name)
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32" if value in _INT32 else "i64"
            if value % 16 == 0 and name not in plain:
                aligned.append(name)
    return CompileCase(operator, kernel, signature, key, chosen, tuple(aligned), vectorised)


def is_wide(*tensors: Tensor | None) -> bool:
    """Whether an offset into one image of a tensor takes more than 32 bits (offsets of images always have 64)."""
    return force_wide or any(
        sum((size - 1) * stride for size, stride in zip(t.shape[1:], t.stride()[1:], strict=True)) not in _INT32
        for t in tensors
        if t is not None
    )


def strides(prefix: str, x: Tensor | None) -> dict[str, int]:
    """The arguments ``<prefix>_n``, ``_c``, ``_h`` and ``_w`` of a kernel: strides of ``x``, 0 where there is none."""
    values = (0, 0, 0, 0) if x is None else x.stride()
    return dict(zip((f"{prefix}_n", f"{prefix}_c", f"{prefix}_h", f"{prefix}_w"), values, strict=True))
