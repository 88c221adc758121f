"""``F.interpolate`` as a lazy tensor."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from ..backend import DTYPES, choose
from ..grid import BilinearGrid, scaled_size
from ..layout import suggested_format
from . import report
from .lazy import Scores, Unanswered, derived, is_lazy, make, outline, scores_of, upsampled


def interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """``F.interpolate``: a lazy tensor where the operators can answer for it, else what PyTorch makes."""
    options = (size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    try:
        grid = _grid(input, *options)
        if is_lazy(input):
            return _again(input, grid, options)
        _check_source(input, grid)
    except Unanswered as reason:
        if is_lazy(input):
            input = make(input, f"interpolate ({reason})")
        else:
            report.count_left(str(reason))
        return F.interpolate(input, *options)
    # Inference tensors do not tell whether they were changed since.
    coarse = input.clone() if input.is_inference() else input
    coarse = coarse.to(autocast_dtype(F.interpolate, input, (1, 1), None, "bilinear"))
    coarse = coarse if torch.is_grad_enabled() else coarse.detach()
    like = torch.empty(
        (*coarse.shape[:2], *grid.size),
        dtype=coarse.dtype,
        device="meta",
        memory_format=suggested_format(coarse),
    )
    return upsampled(Scores(coarse, grid), lambda: F.interpolate(coarse, *options), like)


def _again(input: Tensor, grid: BilinearGrid, options: tuple[Any, ...]) -> Tensor:
    """Of upsampled scores: what they are, if their size stays."""
    if not grid.is_identity or grid.size != tuple(input.shape[2:]):
        raise Unanswered("of upsampled scores, to another size")
    like = torch.empty_like(outline(input), memory_format=suggested_format(input))
    return derived(input, lambda x: F.interpolate(x, *options), like, scores_of(input))


def autocast_dtype(function: Callable[..., Tensor], x: Tensor, *arguments: Any) -> torch.dtype:
    """The dtype that ``function`` makes of a map like ``x`` where autocast is as it is now."""
    device = x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return _probe(function, arguments, x.dtype, device, autocast)


@cache
def _probe(
    function: Callable[..., Tensor], arguments: Any, dtype: torch.dtype, device: str, autocast: torch.dtype | None
) -> torch.dtype:
    with torch._C.DisableTorchFunction(), torch.autocast(device, autocast, enabled=autocast is not None):
        return function(torch.zeros(1, 1, 1, 1, dtype=dtype, device=device), *arguments).dtype


def _grid(
    x: Tensor,
    size: Any,
    scale_factor: Any,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
    antialias: bool,
) -> BilinearGrid:
    """Where output pixels sample ``x``; raises ``Unanswered`` if this is not bilinear."""
    if mode != "bilinear" or antialias:
        raise Unanswered(f"mode={mode!r}{' with antialias' if antialias else ''}")
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0 or torch._C._get_tracing_state():
        raise Unanswered("a transform of torch.func, forward-mode derivatives or tracing")
    if not isinstance(x, Tensor) or x.dim() != 4 or 0 in x.shape or x.dtype not in DTYPES:
        raise Unanswered(f"a tensor {list(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else "no tensor")
    input_size = (x.shape[2], x.shape[3])
    if scale_factor is not None:
        scale_factor = _pair(scale_factor)
    elif size is not None:
        size = _pair(size)
    if recompute_scale_factor and size is None and scale_factor is not None:
        size, scale_factor = scaled_size(input_size, scale_factor), None
    try:
        grid = BilinearGrid.interpolate(input_size, size, bool(align_corners), scale_factor=scale_factor)
    except (TypeError, ValueError) as error:
        raise Unanswered(str(error).removeprefix("BilinearGrid.interpolate: ")) from None
    if 0 in grid.size:
        raise Unanswered(f"{input_size} to {grid.size}")
    return grid


def _check_source(x: Tensor, grid: BilinearGrid) -> None:
    """Raises ``Unanswered`` unless the operators can be given ``x``, and have something to gain."""
    if type(x) not in (Tensor, nn.Parameter) or x.layout != torch.strided:
        raise Unanswered(f"a {type(x).__name__} of layout {x.layout}")
    if grid.size[0] * grid.size[1] <= x.shape[2] * x.shape[3]:
        raise Unanswered(f"{tuple(x.shape[2:])} to {grid.size} is no upsampling")
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint":
        # It is run again in backward, by then perhaps without fuse, and must save the same tensors.
        raise Unanswered("inside a checkpoint")
    try:
        backend = choose("fuse", None, x)
    except ValueError as error:
        raise Unanswered(str(error)) from None
    if backend == "reference":
        raise Unanswered(f"no compiled operators for {x.dtype} on {x.device.type}")


def _pair(value: Any) -> tuple[Any, Any]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(number, (int, float)) for number in pair):
        raise Unanswered(f"a size or scale_factor of {value}")
    return pair[0], pair[1]
