"""The CPU backend as part of a process: memory, forks, Python threads."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fcn_kernels import upsample_argmax, upsample_cross_entropy
from fcn_kernels.backend import why_not

pytestmark = pytest.mark.skipif(why_not("cpu") is not None, reason=str(why_not("cpu")))


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_memory_is_that_of_the_coarse_scores() -> None:
    """Loss and gradient of [2, 21, 1024, 1024] logits: 176 MB for PyTorch to hold once, here a few MB."""
    extra = run(
        """
        import resource, torch, fcn_kernels
        x = torch.randn(2, 21, 128, 128, requires_grad=True)
        target = torch.randint(0, 21, (2, 1024, 1024), dtype=torch.uint8)
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        small = torch.randn(1, 21, 8, 8, requires_grad=True)
        fcn_kernels.upsample_cross_entropy(small, target[:1, :64, :64].contiguous()).backward()
        ballast = torch.ones(1 << 20); del ballast
        before = peak()
        fcn_kernels.upsample_cross_entropy(x, target).backward()
        fcn_kernels.upsample_argmax(x.detach(), size=(1024, 1024))
        print(peak() - before)
        """
    )
    coarse = 2 * 21 * 128 * 128 * 4 / 2**20
    labels = 2.0
    # Gradient and its copy in the dtype of x, shared rows of bands, scratch of two threads.
    assert float(extra) < 4 * coarse + labels + 6, f"{extra} MB"


def test_after_fork_in_a_data_loader() -> None:
    """A worker's calls must not wait for OpenMP threads that fork() did not copy."""
    out = run(
        """
        import torch, fcn_kernels
        class Labels(torch.utils.data.Dataset):
            def __len__(self): return 4
            def __getitem__(self, i):
                torch.manual_seed(i)
                return fcn_kernels.upsample_argmax(torch.randn(1, 5, 20, 20), size=(160, 160))
        if __name__ == "__main__":
            torch.set_num_threads(2)
            mine = [Labels()[i] for i in range(4)]
            loader = torch.utils.data.DataLoader(Labels(), None, num_workers=2, multiprocessing_context="fork")
            workers = list(loader)
            print(all(torch.equal(a, b) for a, b in zip(mine, workers)))
        """
    )
    assert out.strip() == "True"


def test_from_several_python_threads_at_once() -> None:
    x, target = torch.randn(2, 11, 24, 24), torch.randint(0, 11, (2, 192, 192))
    want = upsample_cross_entropy(x, target), upsample_argmax(x, size=(192, 192))
    with ThreadPoolExecutor(8) as pool:
        losses = list(pool.map(lambda _: upsample_cross_entropy(x, target), range(32)))
        labels = list(pool.map(lambda _: upsample_argmax(x, size=(192, 192)), range(32)))
    assert all(torch.equal(loss, want[0]) for loss in losses)
    assert all(torch.equal(a, want[1]) for a in labels)  # type: ignore[arg-type]


def test_only_one_openmp_library_is_loaded() -> None:
    """Two pools of spinning threads on the same cores would cost each other dearly."""
    out = run(
        """
        import torch, fcn_kernels
        x = torch.randn(4, 21, 64, 64)
        fcn_kernels.upsample_argmax(x, size=(512, 512))
        files = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
        libraries = {file for file in files if "omp" in file.rsplit("/", 1)[-1]}
        print(len(libraries), libraries)
        """
    )
    assert out.startswith("1 "), out
