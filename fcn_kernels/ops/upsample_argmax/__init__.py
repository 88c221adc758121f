"""Label map straight from coarse scores."""

from __future__ import annotations

import torch
from torch import Tensor

from ...backend import choose, define_op, implementation
from ...checks import check_scores, output_grid
from ...grid import BilinearGrid
from .reference import upsample_argmax as upsample_argmax_reference


def upsample_argmax(
    x: Tensor,
    *,
    grid: BilinearGrid | None = None,
    size: tuple[int, int] | None = None,
    confidence: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Label map of upsampled scores, without the upsampled scores.

    Replaces ``F.interpolate(x, size, mode="bilinear").argmax(1)`` and, with ``confidence``, ``.softmax(1).amax(1)``.
    Memory: the label map itself; nothing of size C x H x W exists. Exact: classes are left out of a pixel only where
    their corner scores prove that they cannot win.

    Args:
        x: coarse scores ``[N, C, h, w]``, float32, bfloat16, float16 or float64, contiguous or channels_last.
        grid: where output pixels sample ``x``; ``F.interpolate(align_corners=False)`` to ``size`` if None.
        size: ``(H, W)`` where ``grid`` is not given.
        confidence: also return the softmax probability of the winning class.
        backend: ``"reference"``, ``"cpu"``, ... or None for the default (``use_backend``).

    Returns labels ``[N, H, W]``, uint8 for C <= 256 and int64 above; with ``confidence``, ``(labels, probability)``,
    the latter float32 (float64 for float64 scores). Ties go to the lowest class, a NaN beats every number, as in
    ``torch.argmax``. Not differentiable. Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong.
    """
    check_scores("upsample_argmax", "x", x)
    grid = output_grid("upsample_argmax", x, grid, size, "size")
    backend = choose("upsample_argmax", backend, x)
    if backend == "reference":
        with torch.no_grad():
            return upsample_argmax_reference(x, grid, confidence)
    labels, *probability = _forward(x, grid.as_ints(), confidence, backend)
    return (labels, probability[0]) if confidence else labels


def _run(x: Tensor, grid: list[int], confidence: bool, backend: str) -> list[Tensor]:
    outputs = _fake(x, grid, confidence, backend)
    if outputs[0].numel() > 0:
        implementation("upsample_argmax", backend).upsample_argmax(x, grid, *outputs)
    return outputs


def _fake(x: Tensor, grid: list[int], confidence: bool, backend: str) -> list[Tensor]:
    shape = (x.shape[0], grid[0], grid[1])
    outputs = [x.new_empty(shape, dtype=torch.uint8 if x.shape[1] <= 256 else torch.int64)]
    if confidence:
        outputs.append(x.new_empty(shape, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32))
    return outputs


_forward = define_op(
    "upsample_argmax", "(Tensor x, SymInt[] grid, bool confidence, str backend) -> Tensor[]", _run, _fake
)
