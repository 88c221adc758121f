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
    size: tuple[int, int] | None = None,
    *,
    grid: BilinearGrid | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    align_corners: bool = False,
    confidence: bool = False,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Label map of upsampled scores, without the upsampled scores.

    Replaces ``F.interpolate(x, size, mode="bilinear").argmax(1)`` and, with ``confidence``, ``.softmax(1).amax(1)``.
    Memory: the label map itself; nothing of size C x H x W exists. Exact: classes are left out of a pixel only where
    their corner scores prove that they cannot win.

    Args:
        x: coarse scores ``[N, C, h, w]``, float32, bfloat16, float16 or float64, contiguous or channels_last.
        size: ``(H, W)`` where neither ``grid`` nor ``scale_factor`` says it.
        grid: where output pixels sample ``x``; ``F.interpolate(align_corners=False)`` to ``size`` if None.
        scale_factor, align_corners: those of ``F.interpolate``, where ``grid`` is not given.
        confidence: also return the softmax probability of the winning class.
        dtype: of the labels, ``torch.uint8`` or ``torch.int64``; by default uint8 for C <= 256 and int64 above. uint8
            takes an eighth of the memory, but it indexes as a mask (``palette[labels]``), wraps around
            (``labels - 1``), and is no target for ``F.cross_entropy``: ask for ``torch.int64`` there.
        backend: ``"reference"``, ``"cpu"``, ... or None for the default (``use_backend``).

    Returns labels ``[N, H, W]``; with ``confidence``, ``(labels, probability)``, the latter float32 (float64 for
    float64 scores). Ties go to the lowest class, a NaN beats every number, as in ``torch.argmax``. Not differentiable.

    Scores may be -inf, which excludes a class: it is not the label of a pixel that it has a weight in, and a score with
    weight 0 counts for nothing (in PyTorch it makes NaN). Where every class is excluded the label is 0 and the
    probability NaN. NaN and +inf show at the pixels that they have a weight in.

    Raises ``ValueError`` or ``TypeError`` naming the argument that is wrong.
    """
    check_scores("upsample_argmax", "x", x)
    grid = output_grid("upsample_argmax", x, grid, size, "size", scale_factor, align_corners)
    dtype = _label_dtype(x.shape[1], dtype)
    backend = choose("upsample_argmax", backend, x)
    if backend == "reference":
        with torch.no_grad():
            return upsample_argmax_reference(x, grid, confidence, dtype)
    labels, *probability = _forward(x, grid.as_ints(), confidence, dtype, backend)
    return (labels, probability[0]) if confidence else labels


def _label_dtype(classes: int, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.uint8 if classes <= 256 else torch.int64
    if dtype not in (torch.uint8, torch.int64):
        raise TypeError(f"upsample_argmax: dtype must be torch.uint8 or torch.int64, got {dtype}")
    if dtype == torch.uint8 and classes > 256:
        raise ValueError(f"upsample_argmax: dtype torch.uint8 holds labels of 256 classes, and there are {classes}")
    return dtype


def _run(x: Tensor, grid: list[int], confidence: bool, dtype: torch.dtype, backend: str) -> list[Tensor]:
    outputs = _fake(x, grid, confidence, dtype, backend)
    if outputs[0].numel() > 0:
        implementation("upsample_argmax", backend).upsample_argmax(x, grid, *outputs)
    return outputs


def _fake(x: Tensor, grid: list[int], confidence: bool, dtype: torch.dtype, backend: str) -> list[Tensor]:
    shape = (x.shape[0], grid[0], grid[1])
    outputs = [x.new_empty(shape, dtype=dtype)]
    if confidence:
        outputs.append(x.new_empty(shape, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32))
    return outputs


_forward = define_op(
    "upsample_argmax",
    "(Tensor x, SymInt[] grid, bool confidence, ScalarType dtype, str backend) -> Tensor[]",
    _run,
    _fake,
)
