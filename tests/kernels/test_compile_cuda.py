"""The CUDA kernels as nvcc compiles them: registers are enough, memory is accessed as widely as promised."""

from __future__ import annotations

import pytest

from fcn_kernels.compile_cuda import compile_kernels, operators, parse, why_not

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
    assert (leak.registers, leak.spills, leak.stack, leak.shared, leak.load, leak.store) == (64, 72, 16, 8192, 16, 2)
    assert (dry.registers, dry.spills, dry.stack, dry.shared, dry.load, dry.store) == (8, 0, 0, 0, 0, 0)
    assert leak.kernel in ("leak<float, 8>", "_ZN3fcn4leakIfLi8EEEvPT_")  # without a tool that reads such names


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("operator", operators())
def test_nothing_spills(operator: str) -> None:
    kernels = [kernel for file in compile_kernels(("sm_90",), [operator]) for kernel in file]
    assert kernels
    assert not [kernel for kernel in kernels if kernel.spills or kernel.stack]
    wide = [kernel for kernel in kernels if "WithinPixel" in kernel.kernel or "Enlarged" in kernel.kernel]
    assert all(kernel.load == kernel.store == 16 for kernel in wide)
