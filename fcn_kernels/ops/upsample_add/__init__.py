"""Bilinear upsampling with skip-add."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...autograd import first_order_only, recorded
from ...backend import choose, define_op, implementation
from ...checks import check_scores, check_skip, output_grid
from ...grid import BilinearGrid
from ...layout import empty_map, layout_of
from .reference import upsample_add as upsample_add_reference


def upsample_add(
    x: Tensor,
    skip: Tensor | None = None,
    *,
    grid: BilinearGrid | None = None,
    size: tuple[int, int] | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    align_corners: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Bilinear upsampling of ``x``, plus ``skip``, in one pass (FCN's fusion of streams; CVPR 2015, section 4.2).

    Replaces ``F.interpolate(x, size, mode="bilinear") + skip`` or, with ``grid = BilinearGrid.transposed(...)``,
    ``conv_transpose2d`` with a fixed bilinear filter, a crop, and ``+ skip``. The upsampled map is not
    written on its own.

    Args:
        x: ``[N, C, h, w]``, float32, bfloat16, float16 or float64, contiguous or channels_last.
        skip: ``[N, C, H, W]`` of the same dtype, or None for the upsampling alone.
        grid: where output pixels sample ``x``; ``F.interpolate(align_corners=False)`` to ``skip`` or ``size`` if None.
        size: ``(H, W)`` where neither ``skip``, ``grid`` nor ``scale_factor`` says it.
        scale_factor, align_corners: those of ``F.interpolate``, where ``grid`` is not given.
        backend: ``"reference"``, ``"cpu"``, ... or None for the default (``use_backend``).

    Returns ``[N, C, H, W]`` in the dtype of ``x`` (sums in float32), in the layout of ``skip``, else of ``x``.
    Differentiable once in ``x`` and ``skip``. Where scores are not finite, pixels between them and their neighbours are
    not either, and may be NaN. Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong.
    """
    check_scores("upsample_add", "x", x)
    if skip is not None:
        check_skip("upsample_add", skip, x, size)
        size = (skip.shape[2], skip.shape[3])
    source = "skip" if skip is not None else "size"
    grid = output_grid("upsample_add", x, grid, size, source, scale_factor, align_corners)
    backend = choose("upsample_add", backend, x)
    if backend == "reference":
        return upsample_add_reference(x, skip, grid)
    run = _UpsampleAdd.apply if recorded(x, skip) else _forward
    result: Tensor = run(x, skip, grid.as_ints(), backend)
    return result


class _UpsampleAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, skip: Tensor | None, grid: list[int], backend: str) -> Tensor:
        ctx.grid, ctx.backend, ctx.size = grid, backend, (x.shape[2], x.shape[3])
        ctx.layout = layout_of(x)
        return _forward(x, skip, grid, backend)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = _backward(grad, list(ctx.size), ctx.grid, ctx.layout, ctx.backend)
            grad_x = first_order_only("upsample_add", grad_x, grad)
        # The sum passes the incoming gradient on as it is.
        return grad_x, grad if ctx.needs_input_grad[1] else None, None, None


def _run(x: Tensor, skip: Tensor | None, grid: list[int], backend: str) -> Tensor:
    out = _fake(x, skip, grid, backend)
    implementation("upsample_add", backend).upsample_add(x, skip, grid, out)
    return out


def _fake(x: Tensor, skip: Tensor | None, grid: list[int], backend: str) -> Tensor:
    return empty_map(x, (x.shape[0], x.shape[1], grid[0], grid[1]), layout_of(x if skip is None else skip))


def _run_backward(grad: Tensor, size: list[int], grid: list[int], layout: str, backend: str) -> Tensor:
    grad_x = _fake_backward(grad, size, grid, layout, backend)
    implementation("upsample_add", backend).upsample_add_backward(grad, grid, grad_x)
    return grad_x


def _fake_backward(grad: Tensor, size: list[int], grid: list[int], layout: str, backend: str) -> Tensor:
    return empty_map(grad, (grad.shape[0], grad.shape[1], size[0], size[1]), layout)


_forward = define_op("upsample_add", "(Tensor x, Tensor? skip, SymInt[] grid, str backend) -> Tensor", _run, _fake)
_backward = define_op(
    "upsample_add_backward",
    "(Tensor grad, SymInt[] size, SymInt[] grid, str layout, str backend) -> Tensor",
    _run_backward,
    _fake_backward,
)
