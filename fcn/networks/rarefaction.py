"""Dense scores from a strided network: shift-and-stitch, and filter rarefaction (CVPR 2015, section 3.2)."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fcn_kernels import dilated_conv2d
from fcn_kernels.checks import check_pair

from .convolution import convolve
from .graph import Pair, Window, reach_of, trace, window_of


def shift_and_stitch(net: nn.Module, x: Tensor, f: int | Pair) -> Tensor:
    """Runs ``net`` on ``f * f`` shifted copies of ``x`` and interlaces what it gives.

    ``f``: how many times denser the result is than ``net(x)``, for (rows, columns); a divisor of the network's stride
    ``s``, and the paper's ``f`` where it equals ``s``. The copies are shifted by multiples of ``s / f`` pixels, by
    leaving out first rows and columns. ``x`` is ``[N, C, H, W]``; the result has one position for every ``s / f``
    pixels at which the receptive field lies in the padded image: what ``rarefy(net, s / f)(x)`` gives. Without padding
    in ``net`` the two are equal everywhere; with it, wherever none is seen, since a shifted copy is padded elsewhere.
    Outputs of windows that reach past the image (ceil mode) are dropped. Differentiable. Raises ``ValueError`` for
    another ``f``, a smaller image, or a network without a fixed graph of layers.
    """
    f = check_pair("shift_and_stitch", "f", f, 1)
    reach = reach_of(net)
    if reach.stride[0] % f[0] or reach.stride[1] % f[1]:
        raise ValueError(f"shift_and_stitch: f must divide the network's stride {reach.stride}, got {f}")
    step = (reach.stride[0] // f[0], reach.stride[1] // f[1])
    height, width = reach.outputs((x.shape[-2], x.shape[-1]))
    if height < 1 or width < 1:
        raise ValueError(
            f"shift_and_stitch: an image of {tuple(x.shape[-2:])} pixels, padded by {reach.padding}, is smaller than "
            f"the network's receptive field {reach.field}"
        )
    parts: list[Tensor] = []
    for down in range(0, reach.stride[0], step[0]):
        for across in range(0, reach.stride[1], step[1]):
            shifted = x[..., down:, across:]
            rows, columns = (max(0, n) for n in reach.outputs((shifted.shape[-2], shifted.shape[-1])))
            if rows == 0 or columns == 0:
                parts.append(torch.zeros_like(parts[0]))
            else:
                part = net(shifted)[..., :rows, :columns]
                parts.append(F.pad(part, (0, width - columns, 0, height - rows)))
    stitched: Tensor = torch.stack(parts).unflatten(0, f).permute(2, 3, 4, 0, 5, 1).flatten(4).flatten(2, 3)
    dense = dataclasses.replace(reach, stride=step).outputs((x.shape[-2], x.shape[-1]))
    return stitched[..., : dense[0], : dense[1]]


def rarefy(net: nn.Module, stride: int | Pair = 1) -> fx.GraphModule:
    """The network that gives at every ``stride`` pixels what ``net`` gives at every multiple of its own stride.

    Strides are kept, from the image on, as long as their product divides ``stride``; the others become 1, and every
    later convolution and pooling is dilated by their product: ``f'_ij = f_{i/s, j/s}`` where ``s`` divides ``i`` and
    ``j``, else 0. Poolings always round down. Parameters are those of ``net``, not copies, under the same names;
    convolutions without groups run on ``fcn_kernels.dilated_conv2d``. Raises ``ValueError`` for a network in training
    mode or without a fixed graph of layers, and where the strides do not multiply to ``stride``.
    """
    stride = check_pair("rarefy", "stride", stride, 1)
    traced = trace(net)
    kept: dict[fx.Node, Pair] = {}
    removed: dict[fx.Node, Pair] = {}
    for node in list(traced.graph.nodes):
        inputs = [each for each in node.all_input_nodes if each in kept]
        window = window_of(traced, node)
        if node.op == "output":
            wrong = {each.name: kept[each] for each in inputs if kept[each] != stride}
            if wrong:
                raise ValueError(f"rarefy: the network's strides cannot leave {stride}: {wrong} would be left")
            continue
        if any((kept[each], removed[each]) != (kept[inputs[0]], removed[inputs[0]]) for each in inputs):
            raise ValueError(f"rarefy: {node.name} joins maps of different strides")
        before = kept[inputs[0]] if inputs else (1, 1)
        dilation = removed[inputs[0]] if inputs else (1, 1)
        if window is None:
            kept[node], removed[node] = before, dilation
            continue
        stays = [stride[a] % (before[a] * window.stride[a]) == 0 for a in (0, 1)]
        strides = tuple(window.stride[a] if stays[a] else 1 for a in (0, 1))
        rare = Window(
            window.kind,
            window.kernel_size,
            (strides[0], strides[1]),
            (window.padding[0] * dilation[0], window.padding[1] * dilation[1]),
            (window.dilation[0] * dilation[0], window.dilation[1] * dilation[1]),
            end_padding=(window.end_padding[0] * dilation[0], window.end_padding[1] * dilation[1]),
        )
        replaced = _emit(traced, node, rare)
        kept[replaced] = (before[0] * strides[0], before[1] * strides[1])
        removed[replaced] = tuple(  # type: ignore[assignment]
            dilation[a] * (1 if stays[a] else window.stride[a]) for a in (0, 1)
        )
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def dilated_max_pool2d(x: Tensor, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """``F.max_pool2d`` for any padding: PyTorch's own may not exceed half the kernel."""
    if 2 * padding[0] > kernel_size[0] or 2 * padding[1] > kernel_size[1]:
        x, padding = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=-torch.inf), (0, 0)
    return F.max_pool2d(x, kernel_size, stride, padding, dilation)


def dilated_avg_pool2d(x: Tensor, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """The mean of the window's taps, padding counted as zeros. PyTorch's average pooling has no dilation."""
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    rows, columns = (x.shape[a - 2] - (kernel_size[a] - 1) * dilation[a] for a in (0, 1))
    total: Any = 0
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            top, left = i * dilation[0], j * dilation[1]
            total = total + x[..., top : top + rows : stride[0], left : left + columns : stride[1]]
    return total / (kernel_size[0] * kernel_size[1])  # type: ignore[no-any-return]


def _emit(net: fx.GraphModule, node: fx.Node, window: Window) -> fx.Node:
    """Replaces ``node`` by the same layer with this window; nothing changes where it has it already."""
    if window == window_of(net, node):
        return node
    x, graph = node.all_input_nodes[0], net.graph
    with graph.inserting_before(node):
        if window.kind == "pad":
            rows, columns = window.end_padding
            replaced = graph.call_function(F.pad, (x, (0, columns, 0, rows)))
        elif window.kind == "conv":
            conv = net.get_submodule(str(node.target))
            weight = graph.get_attr(f"{node.target}.weight")
            bias = None if conv.bias is None else graph.get_attr(f"{node.target}.bias")
            options: dict[str, Any] = {"dilation": window.dilation, "padding": window.padding}
            if window.stride == (1, 1) and conv.groups == 1:
                options |= node.kwargs
                replaced = graph.call_function(dilated_conv2d, (x, weight, bias), options)
            else:
                options |= {"stride": window.stride, "groups": conv.groups, **node.kwargs}
                replaced = graph.call_function(convolve, (x, weight, bias), options)
        else:
            pool = dilated_max_pool2d if window.kind == "max_pool" else dilated_avg_pool2d
            sizes = (window.kernel_size, window.stride, window.padding, window.dilation)
            replaced = graph.call_function(pool, (x, *sizes))
    node.replace_all_uses_with(replaced)
    graph.erase_node(node)
    return replaced
