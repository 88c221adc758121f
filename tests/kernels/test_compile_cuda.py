"""The CUDA kernels as nvcc compiles them: registers are enough, memory is accessed as widely as promised."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from fcn_kernels.compile_cuda import PROMISES, SOURCES, compile_kernels, narrow, operators, parse, why_not
from fcn_kernels.ptx import accesses, in_words

REPORT = """\
ptxas info    : Compiling entry function '_ZN3fcn4leakIfLi8EEEvPT_' for 'sm_90'
ptxas info    : Function properties for _ZN3fcn4leakIfLi8EEEvPT_
    16 bytes stack frame, 12 bytes spill stores, 60 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 16 bytes cumulative stack size, 8192 bytes smem
ptxas info    : Compiling entry function '_ZN3fcn4dryEv' for 'sm_90'
ptxas info    : Function properties for _ZN3fcn4dryEv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""
PTX = """\
.version 9.0
.target sm_90
.visible .entry _ZN3fcn4leakIfLi8EEEvPT_(
    ld.global.nc.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];
    st.global.b16 [%rd2], %rs1;
}
.visible .entry _ZN3fcn4dryEv()
{
    ret;
}
"""


def test_reports_are_read() -> None:
    leak, dry = parse("leaks", REPORT, [PTX])
    assert (leak.operator, leak.target, leak.ptx) == ("leaks", "sm_90", "9.0")
    assert (leak.registers, leak.spills, leak.stack, leak.shared, leak.loads, leak.stores) == (
        64,
        72,
        16,
        8192,
        {16: 1},
        {2: 1},
    )
    assert (dry.registers, dry.spills, dry.stack, dry.shared, dry.loads, dry.stores) == (8, 0, 0, 0, {}, {})
    assert leak.kernel in ("leak<float, 8>", "_ZN3fcn4leakIfLi8EEEvPT_")  # without a tool that reads such names


def test_accesses_are_counted_by_width() -> None:
    code = """
    st.global.wb.v4.u32 [%rd1], {%r1, %r2, %r3, %r4};
    @%p1 st.global.v2.b16 [%rd1], {%rs1, %rs2};
    st.global.b16 [%rd1], %rs1;
    st.shared.v4.b32 [%r1], {%r1, %r2, %r3, %r4};
    ld.global.L1::evict_last.b64 %rd2, [%rd1];
    cp.async.cg.shared.global [ %r1 + 0 ], [ %rd1 + 0 ], 0x10, %r2;
    """
    assert accesses(code, "st") == {16: 1, 4: 1, 2: 1}
    assert accesses(code, "ld") == {16: 1, 8: 1}
    assert in_words(accesses(code, "st")) == "16x1,4x1,2x1"


@pytest.mark.parametrize(
    ("kernel", "loads", "stores", "count"),
    [
        ("cross_entropy_registers<float, 24, 4>", {16: 24}, {16: 24, 4: 6}, 0),
        ("cross_entropy_registers<float, 24, 4>", {16: 24}, {16: 2, 4: 94}, 88),  # a gradient stored by numbers
        ("cross_entropy_registers<__nv_bfloat16, 24, 4>", {8: 24}, {8: 24, 4: 6}, 0),
        ("cross_entropy_registers<__nv_bfloat16, 24, 4>", {8: 24}, {4: 50}, 50),
        ("cross_entropy_registers<float, 24, 1>", {4: 24}, {4: 24}, 0),
        ("upsample_add_kernel<__half, Enlarged<__half> >", {2: 78}, {16: 3, 2: 24}, 0),
        ("upsample_add_kernel<__half, Enlarged<__half> >", {2: 78}, {16: 2, 2: 24}, 8),
        ("upsample_add_kernel<__half, WithinPixel<__half> >", {2: 78}, {16: 3, 2: 24}, 78),
        ("conv_transpose_add_numbers<float>", {16: 1, 4: 18}, {16: 1, 4: 5}, 1),
        ("multiply_pixels<__half, TensorCores<__half>, float, 128, true>", {16: 32}, {16: 3, 4: 12}, 0),
    ],
)
def test_narrow_accesses_are_found(kernel: str, loads: dict[int, int], stores: dict[int, int], count: int) -> None:
    assert narrow(kernel, Counter(loads), Counter(stores)) == count


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("operator", operators())
def test_kernels_keep_their_promises(operator: str) -> None:
    kernels = [kernel for file in compile_kernels(("sm_90",), [operator]) for kernel in file]
    assert kernels
    assert not [kernel for kernel in kernels if kernel.spills or kernel.stack]
    assert not [kernel for kernel in kernels if kernel.narrow]


def test_every_promise_is_of_a_kernel() -> None:
    """Where a kernel is renamed, its promise would hold nothing."""
    sources = "".join(path.read_text() for path in SOURCES.glob("*/*") if path.suffix in (".h", ".cu"))
    for promise in PROMISES:
        names = re.findall(r"[a-z_]{8,}", promise.kernels)
        assert names
        assert all(name in sources for name in names)
