"""Why a backend cannot run, where what it needs is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fcn_kernels import backend as backends


def test_a_torch_without_the_exchange_api_leaves_the_reference() -> None:
    program = """
import torch
for kind in torch.Tensor.__mro__:
    if "__dlpack_c_exchange_api__" in vars(kind):
        type.__delattr__(kind, "__dlpack_c_exchange_api__")
import fcn_kernels
from fcn_kernels import backend
print(backend.why_not("cpu"))
print(fcn_kernels.upsample_add(torch.ones(1, 1, 2, 2), size=(4, 4)).sum().item())
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    reason, total = said.stdout.splitlines()
    want = f"fcn_kernels._C cannot read tensors: torch {torch.__version__} has no __dlpack_c_exchange_api__; "
    assert reason == want + "torch 2.11 and later have it"
    assert float(total) == 16


@pytest.mark.parametrize(
    ("triton", "numpy", "runs"),
    [("3.6.0", "2.3.5", True), ("3.6.0", "2.4.0", False), ("3.6.0", "2.10.1", False), ("3.9.0", "2.5.2", True)],
)
def test_which_interpreter_runs_with_which_numpy(triton: str, numpy: str, runs: bool) -> None:
    reason = backends._why_not_interpreted(triton, numpy)
    assert (reason == "") == runs
    assert runs or f"triton {triton} does not run with numpy {numpy} (pip install 'numpy<2.4')" in reason
