"""The CPU kernels on a processor that is not an x86: cross-compiled, and run on an emulated one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(COMPILER is None or EMULATOR is None, reason="needs aarch64-linux-gnu-g++ and qemu-aarch64")
def test_kernels_agree_with_pytorch(tmp_path: Path) -> None:
    sources = [*ROOT.glob("csrc/*/cpu.cpp"), ROOT / "csrc/common/kernels.cpp", Path(__file__).with_name("aarch64.cpp")]
    options = (
        "-O1",
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-static",
        "-ffp-contract=fast",
        "-DFCN_ISA=baseline",
    )
    subprocess.run([str(COMPILER), *options, *map(str, sources), "-o", str(tmp_path / "kernels")], check=True)

    x, skip = torch.randn(2, 5, 6, 37, requires_grad=True), torch.randn(2, 5, 12, 74)
    logits, target = torch.randn(2, 5, 24, 148, requires_grad=True), torch.randint(0, 5, (2, 24, 148))
    target[:, 3:7, 20:60] = 255
    given = b"".join(t.detach().numpy().tobytes() for t in (x, skip, logits, target))
    run = subprocess.run([str(EMULATOR), str(tmp_path / "kernels")], input=given, capture_output=True, check=True)
    results = bytearray(run.stdout)

    def take(like: torch.Tensor) -> torch.Tensor:
        data, results[: like.nbytes] = bytes(results[: like.nbytes]), b""
        return torch.frombuffer(bytearray(data), dtype=like.dtype).reshape(like.shape)

    def upsampled(size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(x, size, mode="bilinear")

    torch.testing.assert_close(take(skip), upsampled((12, 74)) + skip)
    assert (take(target) == upsampled((24, 148)).argmax(1)).float().mean() > 0.999  # but for near ties
    coarse_loss = F.cross_entropy(upsampled((24, 148)), target, ignore_index=255, label_smoothing=0.1)
    loss = F.cross_entropy(logits, target, ignore_index=255)
    torch.testing.assert_close(take(x), *torch.autograd.grad(coarse_loss, x))
    torch.testing.assert_close(take(logits), *torch.autograd.grad(loss, logits))
    torch.testing.assert_close(take(torch.empty(2, dtype=torch.float64)).float(), torch.stack((coarse_loss, loss)))
