"""What a GPU's loss takes to work with, counted where there is none: test_gpu.py holds the allocator to the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fcn_kernels import BilinearGrid, launch
from fcn_kernels.backend import implementation
from fcn_kernels.loss import LossCall
from tests.kernels.conftest import RUNNABLE, WORKSPACE_OF_LOSS, emulated


class Allocated(TorchDispatchMode):
    """Bytes of all tensors that are made: at least what is alive at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor) and all(tensor.untyped_storage()._cdata != other for other in self.seen):
                self.seen.append(tensor.untyped_storage()._cdata)
                self.bytes += tensor.untyped_storage().nbytes()
        return made


@pytest.mark.parametrize("backend", [name for name in RUNNABLE if name != "cpu" and emulated(name)])
@pytest.mark.parametrize(("height", "width", "stride"), [(32, 40, 8), (9, 12, 8), (6, 8, 16)])
def test_workspace_of_the_loss(backend: str, height: int, width: int, stride: int, monkeypatch: Any) -> None:
    kernels = implementation("upsample_cross_entropy", backend)
    device = "meta" if backend == "triton" else "cpu"
    if backend == "triton":  # the patches of a GPU, not those of the interpreter
        monkeypatch.setattr(kernels, "MOST_ROWS", 4)
        monkeypatch.setattr(kernels, "MOST_COLUMNS", 8)
    x = torch.zeros(2, 24, height, width, device=device)
    size = (stride * height, stride * width)
    target = torch.zeros(2, *size, device=device, dtype=torch.uint8)
    grid = BilinearGrid.interpolate((height, width), size).as_ints()
    loss, grad, scale = x.new_empty(()), torch.empty_like(x), x.new_empty(())
    with launch.record(), Allocated() as made:
        call = LossCall(x, target, None, None, 255, "mean", 0.0, backend)
        kernels.upsample_cross_entropy(call, grid, loss, grad, scale)
    assert 0 < made.bytes <= WORKSPACE_OF_LOSS * x.nbytes
