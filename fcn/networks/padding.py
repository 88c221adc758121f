"""Padding's share of a network's work, computed once: for networks that pad images by far more than they see.

The published networks pad by 100. Most of that border never meets the image: its values follow from weights and size
alone, and at 500 x 500 they are 37 % of VGG16's convolutions, at 256 x 256 54 %. Here a map is computed only where its
receptive field touches the image, its *live* rectangle. What lies outside comes from one run on an image of zeros, and
enters in two ways: outputs at the rim of the live rectangle see some of it, so its share of their sums (or maxima) is
kept as strips; and maps that leave the network are completed with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .convolution import convolve
from .graph import Window, trace, window_of

UNKNOWN = {"avg_pool": "average poolings", "pad": "paddings of one end"}


class ReusedPadding:
    """``net`` as a function that computes what its padding makes only once for each size of image.

    Equal to ``net(images)`` but for rounding. A size is prepared when it comes the second time, which takes about as
    long as ``net`` itself; the ``sizes_kept`` used last are kept, the others forgotten. What was prepared is dropped
    when a parameter or buffer of ``net`` changes (in place, or by another tensor in its place; writing through
    ``.data`` goes unnoticed). With gradients enabled, under autocast or in training mode, ``net`` itself runs.
    ``finish`` is applied to each prepared network: ``torch.compile``, for example. Raises ``ValueError`` for a network
    without a fixed graph of layers.
    """

    def __init__(
        self,
        net: nn.Module,
        finish: Callable[[nn.Module], Callable[..., Any]] = lambda net: net,
        sizes_kept: int = 8,
    ) -> None:
        traced = trace(net)
        for node in traced.graph.nodes:
            _window(traced, node)
        self.net, self.finish, self.sizes_kept = net, finish, sizes_kept
        self._seen: set[Any] = set()
        self._prepared: dict[Any, Callable[..., Any]] = {}
        self._state: Any = None

    def __call__(self, images: Tensor) -> Any:
        """What ``net(images)`` gives; ``images`` ``[N, C, H, W]``."""
        if self.net.training or torch.is_grad_enabled() or torch.is_autocast_enabled(images.device.type):
            return self.net(images)
        tensors = itertools.chain(self.net.parameters(), self.net.buffers())
        state = [(t.data_ptr(), None if t.is_inference() else t._version) for t in tensors]
        if state != self._state:
            self._prepared.clear()
            self._state = state
        key = (images.shape[1:], images.dtype, images.device)
        run = self._prepared.pop(key, None)
        if run is None:
            if key not in self._seen:
                self._seen.add(key)
                return self.net(images)
            run = self.finish(prepare(self.net, images))
        self._prepared[key] = run  # The one used last comes last.
        while len(self._prepared) > self.sizes_kept:
            oldest = next(iter(self._prepared))
            self._prepared.pop(oldest, None)
            self._seen.discard(oldest)
        return run(images)


def prepare(net: nn.Module, images: Tensor) -> fx.GraphModule:
    """The network that gives what ``net`` gives for images of this shape (but any number), dtype and device.

    It shares the parameters of ``net`` and holds for as long as they do not change.
    """
    with torch.no_grad():
        builder = _Builder(trace(net))
        builder.run(torch.zeros_like(images[:1]) if len(images) else images.new_zeros(1, *images.shape[1:]))
    return fx.GraphModule(builder.net, builder.result)


@dataclass(frozen=True)
class _Span:
    """Positions ``[start, stop)`` of an axis."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class _Axis:
    """Along one axis: how the live part of a layer's output follows from that of its input."""

    live: _Span
    """Outputs whose window touches the live input."""
    inner: _Span
    """Those whose window lies in it."""
    before: int
    """What must be added before and after the live input for windows to yield exactly ``live``."""
    after: int

    @classmethod
    def of(cls, name: str, live: _Span, outputs: int, span: int, stride: int, padding: int) -> _Axis:
        start = max(0, -((span - 1 - padding - live.start) // stride))
        stop = min(outputs, (live.stop - 1 + padding) // stride + 1)
        if stop <= start:
            raise ValueError(f"{name} skips the image: its stride is larger than its kernel")
        inner_start = min(max(start, -((-live.start - padding) // stride)), stop)
        inner_stop = min(max(inner_start, (live.stop + padding - span) // stride + 1), stop)
        return cls(
            _Span(start, stop),
            _Span(inner_start, inner_stop),
            live.start - start * stride + padding,
            (stop - 1) * stride - padding + span - live.stop,
        )


class _Builder(fx.Interpreter):
    """Runs a network on zeros and, layer by layer, writes down the one that computes live rectangles only."""

    def __init__(self, net: fx.GraphModule) -> None:
        super().__init__(net)
        self.net = net
        self.result = fx.Graph()
        self.written: dict[fx.Node, fx.Node] = {}
        self.live: dict[fx.Node, tuple[_Span, _Span]] = {}

    def run_node(self, n: fx.Node) -> Any:
        window = _window(self.net, n)
        if n.op == "placeholder":
            background = super().run_node(n)
            self.live[n] = (_Span(0, background.shape[2]), _Span(0, background.shape[3]))
            self.written[n] = self.result.node_copy(n)
            return background
        if n.op == "output":
            complete = {each: self._completed(each) for each in n.all_input_nodes}
            self.result.node_copy(n, lambda each: complete[each])
            return super().run_node(n)
        inputs = n.all_input_nodes
        if any(self.live[each] != self.live[inputs[0]] for each in inputs):
            raise ValueError(f"{n.name} joins maps that see different parts of the image")
        if window is not None:
            before = self.env[inputs[0]]
            background = super().run_node(n)
            self._write(n, window, before, background)
            return background
        self.live[n] = self.live[inputs[0]]
        self.written[n] = self.result.node_copy(n, lambda each: self.written[each])
        return super().run_node(n)

    def _write(self, node: fx.Node, window: Window, before: Tensor, background: Tensor) -> None:
        """The layer on the live rectangle alone, and what its rim gets from outside (``before``: the map outside)."""
        source = node.all_input_nodes[0]
        rows, columns = (
            _Axis.of(
                node.name, self.live[source][a], background.shape[2 + a], window.span[a], window.stride[a],
                window.padding[a],
            )
            for a in (0, 1)
        )  # fmt: skip
        self.live[node] = (rows.live, columns.live)
        layer = written = self._layer(node, window, self.written[source], rows, columns)
        rim = (
            (_Span(rows.live.start, rows.inner.start), columns.live),
            (_Span(rows.inner.stop, rows.live.stop), columns.live),
            (rows.inner, _Span(columns.live.start, columns.inner.start)),
            (rows.inner, _Span(columns.inner.stop, columns.live.stop)),
        )
        for down, across in rim:
            if len(down) and len(across):
                share = self._outside(node, window, before, down, across)
                if bool((share != _neutral(window)).any()):
                    at = (down.start - rows.live.start, across.start - columns.live.start)
                    join = add_at if window.kind == "conv" else maximum_at
                    written = self.result.call_function(join, (written, *at, self._constant(share)))
        if node.kwargs.get("relu"):
            if written is layer:
                layer.update_kwarg("relu", True)
            else:  # of the sum with the strips
                written = self.result.call_function(F.relu, (written,), {"inplace": True})
        self.written[node] = written

    def _layer(self, node: fx.Node, window: Window, x: fx.Node, rows: _Axis, columns: _Axis) -> fx.Node:
        padding, ceil_mode = (rows.before, columns.before), False
        if window.kind == "max_pool":
            # Without a copy where PyTorch's own padding and rounding yield the same windows.
            ceil_mode = rows.after > rows.before or columns.after > columns.before
            fits = all(
                2 * axis.before <= kernel_size and _poolings(axis, span, stride, ceil_mode) == len(axis.live)
                for axis, kernel_size, span, stride in zip(
                    (rows, columns), window.kernel_size, window.span, window.stride, strict=True
                )
            )
        else:
            fits = rows.before == rows.after >= 0 and columns.before == columns.after >= 0
        if not fits:
            sides = (columns.before, columns.after, rows.before, rows.after)
            x = self.result.call_function(F.pad, (x, sides), {"value": _neutral(window)})
            padding, ceil_mode = (0, 0), False
        if window.kind == "max_pool":
            sizes = (window.kernel_size, window.stride, padding, window.dilation, ceil_mode)
            return self.result.call_function(F.max_pool2d, (x, *sizes))
        conv: Any = self.net.get_submodule(str(node.target))
        weight = self.result.get_attr(f"{node.target}.weight")
        bias = None if conv.bias is None else self.result.get_attr(f"{node.target}.bias")
        return self.result.call_function(
            convolve, (x, weight, bias, window.stride, padding, window.dilation, conv.groups)
        )

    def _outside(self, node: fx.Node, window: Window, before: Tensor, down: _Span, across: _Span) -> Tensor:
        """What some outputs get from the part of the map ``before`` that is not live."""
        neutral = _neutral(window)
        seen, sides = [], []  # The rectangle that these outputs see, and how much of it lies past the map.
        for axis, outputs in enumerate((down, across)):
            start = outputs.start * window.stride[axis] - window.padding[axis]
            stop = (outputs.stop - 1) * window.stride[axis] - window.padding[axis] + window.span[axis]
            seen.append(_Span(max(0, start), min(before.shape[2 + axis], stop)))
            sides.append((max(0, -start), max(0, stop - before.shape[2 + axis])))
        patch = before[:, :, seen[0].start : seen[0].stop, seen[1].start : seen[1].stop].clone()
        live = [
            slice(max(0, live.start - part.start), max(0, live.stop - part.start))
            for live, part in zip(self.live[node.all_input_nodes[0]], seen, strict=True)
        ]
        patch[:, :, live[0], live[1]] = neutral
        patch = F.pad(patch, (*sides[1], *sides[0]), value=neutral)
        if window.kind == "max_pool":
            return F.max_pool2d(patch, window.kernel_size, window.stride, 0, window.dilation)
        conv: Any = self.net.get_submodule(str(node.target))
        return F.conv2d(patch, conv.weight, None, window.stride, 0, window.dilation, conv.groups)

    def _completed(self, node: fx.Node) -> fx.Node:
        """The map with what lies outside its live rectangle."""
        background, (rows, columns) = self.env[node], self.live[node]
        if (len(rows), len(columns)) == tuple(background.shape[2:]):
            return self.written[node]
        constant = self._constant(background)
        return self.result.call_function(paste, (self.written[node], rows.start, columns.start, constant))

    def _constant(self, value: Tensor) -> fx.Node:
        name = f"outside{sum(1 for _ in self.net.buffers())}"
        self.net.register_buffer(name, value)
        return self.result.get_attr(name)


def add_at(x: Tensor, row: int, column: int, values: Tensor) -> Tensor:
    """``x`` with ``values`` ``[1, C, h, w]`` added from ``(row, column)`` on, in place."""
    x[:, :, row : row + values.shape[2], column : column + values.shape[3]] += values
    return x


def maximum_at(x: Tensor, row: int, column: int, values: Tensor) -> Tensor:
    """``x``, in place the larger of itself and ``values`` ``[1, C, h, w]`` from ``(row, column)`` on."""
    part = x[:, :, row : row + values.shape[2], column : column + values.shape[3]]
    part.copy_(torch.maximum(part, values))
    return x


def paste(x: Tensor, row: int, column: int, background: Tensor) -> Tensor:
    """``background`` ``[1, C, H, W]`` for each image of ``x``, with ``x`` from ``(row, column)`` on."""
    shape = (x.shape[0], *background.shape[1:])
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    out.copy_(background)
    out[:, :, row : row + x.shape[2], column : column + x.shape[3]] = x
    return out


def _window(net: fx.GraphModule, node: fx.Node) -> Window | None:
    window = window_of(net, node)
    if window is not None and window.kind in UNKNOWN:
        raise ValueError(f"{node.name}: {UNKNOWN[window.kind]} are not among the layers whose padding is reused")
    return window


def _neutral(window: Window) -> float:
    """What adds nothing to the window's result."""
    return -torch.inf if window.kind == "max_pool" else 0.0


def _poolings(axis: _Axis, span: int, stride: int, ceil_mode: bool) -> int:
    """How many outputs PyTorch's pooling has, given the live input padded by ``axis.before`` on both sides."""
    size = (len(axis.live) - 1) * stride + span - axis.before - axis.after
    outputs = (size + 2 * axis.before - span + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (outputs - 1) * stride >= size + axis.before:
        outputs -= 1
    return outputs
