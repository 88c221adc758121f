"""Triton kernels of cross_entropy: a program takes a tile of pixels with all their classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...configs import Config, bucket, config
from ...launch import CompileCase, is_wide, launch, record
from ...layout import empty_map
from ...loss import LossCall

# Up to here the logits of a tile stay in registers between maximum, sum and gradient: one read. With more classes the
# maximum and the sum are carried from chunk to chunk, and a gradient reads the logits twice.
CLASSES_IN_REGISTERS = 256
CHUNK = 32


@triton.jit
def _pixels(
    logits, target, weight, pixel_weight, loss, sums, grad, classes, height, width,
    logits_n, logits_c, logits_h, logits_w, target_n, target_h, target_w,
    pixel_weight_n, pixel_weight_h, pixel_weight_w, grad_n, grad_c, grad_h, grad_w,
    ignore_index, sharp, smooth,
    CHANNELS_LAST: tl.constexpr, FLAT: tl.constexpr, SMOOTH: tl.constexpr, WIDE: tl.constexpr,
    CHUNKED: tl.constexpr, CLASSES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Of each pixel the ``loss``, of each tile ``sums`` of losses and of weights, the ``grad``: those that are given.

    The loss of a pixel is ``sharp`` times that of its label and ``smooth`` times that of every class.
    """
    tiles = tl.cdiv(height * width, PIXELS)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    first = tl.program_id(0) % tiles * PIXELS
    if WIDE:
        first = first.to(tl.int64)
    pixel = first + tl.arange(0, PIXELS)
    inside = pixel < height * width
    klass = tl.arange(0, CLASSES)

    at = image * target_n + _offset(pixel, width, target_h, target_w, FLAT)
    label = tl.load(target + at, inside, other=0).to(tl.int64)
    valid = inside & (label != ignore_index)
    known = (label >= 0) & (label < classes)
    label = tl.where(valid & known, label, 0).to(tl.int32)
    scale = valid.to(tl.float32)
    if pixel_weight is not None:
        at = image * pixel_weight_n + _offset(pixel, width, pixel_weight_h, pixel_weight_w, FLAT)
        scale = tl.load(pixel_weight + at, valid, other=0).to(tl.float32)
    label_weight = tl.full((PIXELS,), 1, tl.float32)
    if weight is not None:
        label_weight = tl.load(weight + label).to(tl.float32)

    logits += image * logits_n
    scores = _load(
        logits, logits_c, logits_h, logits_w, 0, classes, first, height, width,
        CHANNELS_LAST, FLAT, WIDE, CLASSES, PIXELS,
    )  # fmt: skip
    highest = tl.max(scores, 0)
    base = tl.where(highest == -float("inf"), 0, highest)  # that minus that is no number
    exponentials = tl.exp(scores - base[None, :])
    total = tl.sum(exponentials, 0)
    own = tl.sum(tl.where(klass[:, None] == label[None, :], scores - base[None, :], 0), 0)
    weights, all_scores = 0.0, 0.0
    if SMOOTH:
        class_weight = _class_weights(weight, klass, classes)
        weights = tl.sum(class_weight, 0)
        all_scores = _weighted_sum(class_weight, scores - base[None, :], klass, classes)
    if CHUNKED:
        for start in range(CLASSES, classes, CLASSES):
            scores = _load(
                logits, logits_c, logits_h, logits_w, start, classes, first, height, width,
                CHANNELS_LAST, FLAT, WIDE, CLASSES, PIXELS,
            )  # fmt: skip
            higher = tl.maximum(highest, tl.max(scores, 0))
            finite = tl.where(higher == -float("inf"), 0, higher)
            total = total * tl.exp(highest - finite) + tl.sum(tl.exp(scores - finite[None, :]), 0)
            own += tl.sum(tl.where(start + klass[:, None] == label[None, :], scores - base[None, :], 0), 0)
            highest = higher
            if SMOOTH:
                class_weight = _class_weights(weight, start + klass, classes)
                weights += tl.sum(class_weight, 0)
                all_scores += _weighted_sum(class_weight, scores - base[None, :], start + klass, classes)

    if loss is not None or sums is not None:
        log_total = highest - base + tl.log(total)
        losses = sharp * label_weight * (log_total - own)
        if SMOOTH:
            losses += smooth * (weights * log_total - all_scores)
        losses = tl.where(known, losses, float("nan"))
        losses = tl.where(scale != 0, scale * losses, 0)
        if loss is not None:
            tl.store(loss + image * height * width + pixel, losses, inside)
        if sums is not None:
            tl.store(sums + tl.program_id(0), tl.sum(losses, 0))
            tl.store(sums + tl.num_programs(0) + tl.program_id(0), tl.sum(scale * label_weight, 0))

    if grad is not None:
        grad += image * grad_n + _offset(pixel, width, grad_h, grad_w, FLAT)
        scale = tl.where(known, scale, 0)
        of_label = scale * sharp * label_weight
        if CHUNKED:
            base = tl.where(highest == -float("inf"), 0, highest)
            for start in range(0, classes, CLASSES):
                scores = _load(
                    logits, logits_c, logits_h, logits_w, start, classes, first, height, width,
                    CHANNELS_LAST, FLAT, WIDE, CLASSES, PIXELS,
                )  # fmt: skip
                probability = tl.exp(scores - base[None, :]) * (1 / total)[None, :]
                class_weight = _class_weights(weight, start + klass, classes)
                _store_gradient(
                    grad, grad_c, start + klass, classes, inside, probability, label, of_label, scale, smooth,
                    class_weight, weights, SMOOTH, WIDE,
                )  # fmt: skip
        else:
            probability = exponentials * (1 / total)[None, :]
            class_weight = _class_weights(weight, klass, classes)
            _store_gradient(
                grad, grad_c, klass, classes, inside, probability, label, of_label, scale, smooth,
                class_weight, weights, SMOOTH, WIDE,
            )  # fmt: skip


@triton.jit
def _offset(pixel, width, row_stride, pixel_stride, FLAT: tl.constexpr):
    """From the first pixel of an image; with ``FLAT`` its rows follow each other like its pixels."""
    if FLAT:
        offset = pixel * pixel_stride
    else:
        offset = pixel // width * row_stride + pixel % width * pixel_stride
    return offset


@triton.jit
def _load(
    logits, logits_c, logits_h, logits_w, start, classes, first, height, width,
    CHANNELS_LAST: tl.constexpr, FLAT: tl.constexpr, WIDE: tl.constexpr, CLASSES: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Logits ``[CLASSES, PIXELS]`` from class ``start`` and pixel ``first`` on: -inf beyond the last class."""
    klass, lane = start + tl.arange(0, CLASSES), tl.arange(0, PIXELS)
    if WIDE:
        klass = klass.to(tl.int64)
    known = (klass < classes)[:, None]
    if CHANNELS_LAST:
        # Read by lanes along classes, used by lanes along pixels, which then hold all classes of theirs. The exchange
        # goes through shared memory, where the exclusive or spreads pixels over the banks.
        element = tl.arange(0, PIXELS * CLASSES)
        pixel, klass = first + element // CLASSES, start + (element % CLASSES ^ element // CLASSES % CLASSES)
        mask = (klass < classes) & (pixel < height * width)
        if WIDE:
            klass = klass.to(tl.int64)
        at = _offset(pixel, width, logits_h, logits_w, FLAT) + klass * logits_c
        values = tl.load(logits + at, mask, other=0)
        source = lane[None, :] * CLASSES + (tl.arange(0, CLASSES)[:, None] ^ lane[None, :] % CLASSES)
        scores = tl.gather(values, tl.reshape(source, (CLASSES * PIXELS,)), 0)
        scores = tl.reshape(scores, (CLASSES, PIXELS))
    else:
        at = _offset(first + lane, width, logits_h, logits_w, FLAT)[None, :] + klass[:, None] * logits_c
        scores = tl.load(logits + at, known & (first + lane < height * width)[None, :], other=0)
    return tl.where(known, scores.to(tl.float32), -float("inf"))


@triton.jit
def _class_weights(weight, klass, classes):
    weights = (klass < classes).to(tl.float32)
    if weight is not None:
        weights = tl.load(weight + klass, klass < classes, other=0).to(tl.float32)
    return weights


@triton.jit
def _weighted_sum(class_weight, scores, klass, classes):
    return tl.sum(tl.where((klass < classes)[:, None], class_weight[:, None] * scores, 0), 0)


@triton.jit
def _store_gradient(
    grad, stride, klass, classes, inside, probability, label, of_label, scale, smooth, class_weight, weights,
    SMOOTH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    is_label = (klass[:, None] == label[None, :]).to(tl.float32)
    values = of_label[None, :] * (probability - is_label)
    if SMOOTH:
        values += (scale * smooth)[None, :] * (weights * probability - class_weight[:, None])
    values = tl.where((scale != 0)[None, :], values, 0)
    at = (klass.to(tl.int64) if WIDE else klass) * stride
    mask = (klass < classes)[:, None] & inside[None, :]
    tl.store(grad[None, :] + at[:, None], values.to(grad.dtype.element_ty), mask)


@triton.jit
def _reduce(sums, loss, scale, programs, MEAN: tl.constexpr, BLOCK: tl.constexpr):
    """The sums of tiles in fixed order; ``scale`` is 1 / sum of weights, or 0 if that is 0."""
    lane = tl.arange(0, BLOCK)
    losses, weights = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, programs, BLOCK):
        losses += tl.load(sums + start + lane, start + lane < programs, other=0)
        if MEAN:
            weights += tl.load(sums + programs + start + lane, start + lane < programs, other=0)
    result = tl.sum(losses, 0)
    if MEAN:
        total = tl.sum(weights, 0)
        inverse = tl.where(total != 0, 1 / tl.where(total != 0, total, 1), 0)
        result *= inverse
        if scale is not None:
            tl.store(scale, inverse)
    tl.store(loss, result)


def cross_entropy(
    call: LossCall, loss: Tensor | None = None, grad: Tensor | None = None, scale: Tensor | None = None
) -> None:
    """Writes what is given of ``loss`` (of each pixel where the reduction is "none"), the ``grad`` of the sum, and for
    "mean" ``scale``, 1 / sum of weights. A label out of range makes the loss NaN.
    """
    logits, target = call.scores, call.target
    weight, pixel_weight = call.weights()
    images, classes, height, width = logits.shape
    flat = all(x is None or _pixel_stride(x) is not None for x in (logits, target, pixel_weight, grad))
    key = {
        "dtype": str(logits.dtype).removeprefix("torch."),
        "size": bucket(target.numel()),
        "CHANNELS_LAST": logits.stride(1) == 1 and classes > 1,
        "GRAD": grad is not None,
        "FLAT": flat,
        "SMOOTH": call.label_smoothing > 0,
        "WIDE": is_wide(logits, target, pixel_weight, grad),
        "CHUNKED": classes > CLASSES_IN_REGISTERS,
        "CLASSES": CHUNK if classes > CLASSES_IN_REGISTERS else triton.next_power_of_2(classes),
    }
    tile = config("cross_entropy", "_pixels", _pixels_heuristic, logits.device, **key)["PIXELS"]
    tiles = images * triton.cdiv(height * width, tile)
    reduces = loss is not None and call.reduction != "none"
    sums = logits.new_empty((2, tiles), dtype=torch.float32) if reduces else None
    arguments = {
        "logits": logits, "target": target, "weight": weight, "pixel_weight": pixel_weight,
        "loss": None if reduces else loss, "sums": sums, "grad": grad,
        "classes": classes, "height": height, "width": width,
        **_strides("logits", logits, "nchw", flat), **_strides("target", target, "nhw", flat),
        **_strides("pixel_weight", pixel_weight, "nhw", flat), **_strides("grad", grad, "nchw", flat),
        "ignore_index": call.ignore_index, "sharp": 1 - call.label_smoothing, "smooth": call.label_smoothing / classes,
    }  # fmt: skip
    vectorised = flat and grad is not None and not key["CHANNELS_LAST"]
    launch("cross_entropy", _pixels, lambda _: tiles, arguments, key, _pixels_heuristic, vectorised=vectorised)
    if reduces:
        key = {"dtype": "float32", "size": bucket(tiles), "MEAN": call.reduction == "mean"}
        arguments = {"sums": sums, "loss": loss, "scale": scale, "programs": tiles}
        launch("cross_entropy", _reduce, lambda _: 1, arguments, key, _reduce_heuristic)


def _pixels_heuristic(
    dtype: str, size: int, CHANNELS_LAST: bool, SMOOTH: bool, CHUNKED: bool, CLASSES: int, **key: Any
) -> Config:  # fmt: skip
    """A thread holds 64 logits; 128 in float32 and NCHW, where it then reads 16 bytes at a time and has whole pixels;
    fewer where a loop needs registers as well. Small maps take small tiles, so that there are some hundreds of them.
    """
    if CHUNKED:
        logits = 16 if CHANNELS_LAST else 32
    else:
        logits = 128 if dtype == "float32" and not (CHANNELS_LAST or SMOOTH) and CLASSES <= 32 else 64
    pixels = min(1024, 128 * logits // CLASSES, max(64, 2**size // 256))
    return {"PIXELS": pixels, "num_warps": max(1, CLASSES * pixels // (32 * logits))}


def _reduce_heuristic(size: int, **key: Any) -> Config:
    block = 2 ** min(12, max(5, size))
    return {"BLOCK": block, "num_warps": max(1, block // 256)}


def _pixel_stride(x: Tensor) -> int | None:
    """From a pixel to the next where that is one number, so that an image is one row: no divisions, and vectors."""
    row, column = x.stride()[-2:]
    if x.shape[-1] == 1:
        return row
    return column if x.shape[-2] == 1 or row == x.shape[-1] * column else None


def _strides(name: str, x: Tensor | None, axes: str, flat: bool) -> dict[str, int]:
    strides = [0] * len(axes) if x is None else list(x.stride())
    if x is not None and flat:
        strides[-2:] = [0, _pixel_stride(x) or 0]
    return {f"{name}_{axis}": stride for axis, stride in zip(axes, strides, strict=True)}


def compile_cases() -> Iterator[CompileCase]:
    """Both passes in both layouts, with some, many and chunks of classes, plain and with all that can be given."""
    with record() as cases:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            like = torch.empty(0, dtype=dtype, device="meta")
            for layout in ("contiguous", "channels_last"):
                for classes in (21, 151, 300) if dtype != torch.float16 else (21,):
                    x = empty_map(like, (8, classes, 512, 512), layout)
                    target = like.new_empty((8, 512, 512), dtype=torch.uint8)
                    pixels = like.new_empty(target.shape, dtype=torch.float32)
                    loss, grad, weight = pixels.new_empty(()), torch.empty_like(x), pixels.new_empty((classes,))
                    plain = LossCall(x, target, None, None, 255, "mean", 0.0, "triton")
                    cross_entropy(plain, loss, scale=loss)
                    cross_entropy(LossCall(x, target.long(), weight, pixels, 255, "sum", 0.1, "triton"), grad=grad)
    yield from cases
