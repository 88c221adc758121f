"""Launches dilated_conv2d on CPUs: the C++ kernels where they are faster than the library's convolution, else that.

The kernels use Winograd's algorithm F(4x4, 3x3) for filters of 3 x 3 taps, in every pass. Its transforms spread what is
not finite over a tile, and may overflow where sums would not: the library computes again what is not finite.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ...extension import C
from .choice import few_inputs_pay, winograd_pays


def dilated_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    relu: bool,
    dilation: list[int],
    padding: list[int],
    out: Tensor,
    keep: bool = False,
) -> None:
    """Writes ``out``, which is dense and channels_last; ``x`` may have any strides.

    With ``keep`` the transformed filters, four times the memory of the filters, are kept while ``weight`` lives
    and does not change: by address and version, so that writing through ``.data`` goes unnoticed.
    """
    threads = torch.get_num_threads()
    if few_inputs_pay(weight):
        C.few_inputs(x, weight, bias, out, dilation, padding, relu, threads)
        return
    if winograd_pays(weight, out, dilation, transform=not keep):
        filters = _kept(weight) if keep else _transformed(weight)
        if C.winograd(x, filters, bias, out, dilation, padding, relu, threads):
            return
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    out.copy_(F.conv2d(x, weight, bias, padding=padding, dilation=dilation))
    if relu:
        out.relu_()


def dilated_conv2d_backward_x(
    grad: Tensor, weight: Tensor, dilation: list[int], padding: list[int], grad_x: Tensor
) -> None:
    """Writes ``grad_x``, dense and channels_last: a convolution of ``grad`` by the filters turned round."""
    if winograd_pays(weight, grad_x, dilation, transform=True):
        before = [2 * dilation[axis] - padding[axis] for axis in (0, 1)]
        filters = _transformed(weight, transposed=True)
        if C.winograd(grad, filters, None, grad_x, dilation, before, False, torch.get_num_threads()):
            return
    grad_x.copy_(_backward(grad, grad_x, weight, dilation, padding, 0))


def dilated_conv2d_backward_weight(
    grad: Tensor, x: Tensor, dilation: list[int], padding: list[int], grad_weight: Tensor
) -> None:
    """Writes ``grad_weight``, which may have any strides."""
    if winograd_pays(grad_weight, grad, dilation, transform=True, least_use=0.4) and C.winograd_backward_weight(
        x, grad, grad_weight, dilation, padding, torch.get_num_threads()
    ):
        return
    grad_weight.copy_(_backward(grad, x, grad_weight, dilation, padding, 1))


def _backward(grad: Tensor, x: Tensor, weight: Tensor, dilation: list[int], padding: list[int], which: int) -> Tensor:
    """The library's gradient of ``x`` (``which`` 0; its values are not read) or of ``weight`` (1; likewise)."""
    grad, x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (grad, x, weight))
    mask = [which == 0, which == 1, False]
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, dilation, False, [0, 0], 1, mask
    )
    result: Tensor = gradients[which]
    return result


def _transformed(weight: Tensor, transposed: bool = False) -> Tensor:
    filters = weight.new_empty(C.winograd_filters_size(weight, transposed))
    C.winograd_filters(weight, filters, transposed, torch.get_num_threads())
    return filters


# For each weight what it was when its filters were transformed, and those.
_filters: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def _kept(weight: Tensor) -> Tensor:
    # Instruction sets differ in the width of panels.
    state = (weight.data_ptr(), None if weight.is_inference() else weight._version, weight.stride(), C.isa())
    kept = _filters.get(weight)
    if kept is None or kept[0] != state:
        kept = (state, _transformed(weight))
        _filters[weight] = kept
    result: Tensor = kept[1]
    return result
