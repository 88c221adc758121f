"""Networks as graphs of layers: what each layer looks at, whoever wrote the network."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx, nn

from .convolution import Convolution

Pair = tuple[int, int]
Kind = Literal["conv", "max_pool", "avg_pool", "pad"]

POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Hardswish,
    nn.Dropout, nn.Dropout2d, nn.Identity, nn.BatchNorm2d, nn.LocalResponseNorm,
)  # fmt: skip
POINTWISE_FUNCTIONS = (
    F.relu,
    F.relu6,
    torch.relu,
    F.dropout,
    F.dropout2d,
    F.local_response_norm,
    operator.mul,
    torch.mul,
)
POINTWISE_METHODS = ("to", "type_as", "relu", "relu_", "contiguous")
MERGES = (torch.cat, operator.add, operator.iadd, torch.add)
POOLINGS: dict[Any, Kind] = {F.max_pool2d: "max_pool", F.avg_pool2d: "avg_pool"}


@dataclass(frozen=True)
class Window:
    """What one output of a convolution or pooling looks at; pairs are (rows, columns).

    ``"pad"`` only adds zeros after the last row and column, ``end_padding`` of them: an output is its input.
    """

    kind: Kind
    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    end_padding: Pair = (0, 0)

    @property
    def span(self) -> Pair:
        """Input pixels from the first tap to the last."""
        (height, width), (down, across) = self.kernel_size, self.dilation
        return (height - 1) * down + 1, (width - 1) * across + 1


@dataclass(frozen=True)
class Reach:
    """Which input pixels an output of a network depends on, for (rows, columns).

    Output ``u`` sees the pixels from ``u * stride - padding`` on, ``field`` of them. ``end_padding``: how many pixels
    more than ``padding`` there may be past the last one.
    """

    field: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    end_padding: Pair = (0, 0)

    def through(self, window: Window) -> Reach:
        axes = (0, 1)
        return Reach(
            _pair(self.field[a] + (window.span[a] - 1) * self.stride[a] for a in axes),
            _pair(self.stride[a] * window.stride[a] for a in axes),
            _pair(self.padding[a] + window.padding[a] * self.stride[a] for a in axes),
            _pair(self.end_padding[a] + window.end_padding[a] * self.stride[a] for a in axes),
        )

    def outputs(self, size: Pair) -> Pair:
        """How many outputs an input of this size has; zero or less where it is too small."""
        padded = _pair(size[a] + 2 * self.padding[a] + self.end_padding[a] for a in (0, 1))
        return _pair((padded[a] - self.field[a]) // self.stride[a] + 1 for a in (0, 1))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Convolution) or super().is_leaf_module(m, module_qualified_name)


def trace(net: nn.Module) -> fx.GraphModule:
    """The graph of a network in evaluation mode, sharing its parameters. Raises ``ValueError`` where there is none."""
    if net.training:
        raise ValueError("the network must be in evaluation mode: call its eval() first")
    try:
        graph = _Tracer().trace(net)
        return fx.GraphModule(net, graph, type(net).__name__)
    except Exception as error:  # Whatever the network's own code raises when it meets a symbol instead of a tensor.
        raise ValueError(f"{type(net).__name__} has no fixed graph of layers: {error}") from error


def window_of(net: fx.GraphModule, node: fx.Node) -> Window | None:
    """The window of a convolution or pooling, None for what works pixel by pixel or joins maps.

    Raises ``ValueError`` naming a node that is neither.
    """
    if node.op in ("placeholder", "get_attr", "output"):
        return None
    if node.op == "call_module":
        return _window_of_module(node, net.get_submodule(str(node.target)))
    if node.target in POOLINGS:
        return _window_of_pooling(node)
    if node.target is F.pad:
        return _window_of_pad(node)
    if node.op == "call_method" and node.target in POINTWISE_METHODS:
        return None
    if node.op == "call_function" and node.target in (*POINTWISE_FUNCTIONS, *MERGES):
        return None
    raise ValueError(
        f"{node.name}: {node.op} {node.target} is neither a convolution or pooling, nor known to work pixel by pixel"
    )


def reaches(net: fx.GraphModule) -> dict[fx.Node, Reach]:
    """The reach of every node. Raises ``ValueError`` where maps of unequal geometry meet."""
    found: dict[fx.Node, Reach] = {}
    for node in net.graph.nodes:
        inputs = [found[each] for each in node.all_input_nodes if each in found]
        window = window_of(net, node)
        if node.op == "placeholder":
            found[node] = Reach()
        elif node.op == "output" or not inputs:
            continue
        else:
            joined = max(inputs, key=lambda reach: reach.field)
            if any(_extent(reach) != _extent(joined) for reach in inputs):
                raise ValueError(f"{node.name}: maps of different strides or sizes meet here: {inputs}")
            found[node] = joined if window is None else joined.through(window)
    return found


def reach_of(net: nn.Module) -> Reach:
    """The reach of a network with a single output."""
    traced = trace(net)
    return reaches(traced)[single_output(traced)]


def single_output(net: fx.GraphModule) -> fx.Node:
    result = net.graph.output_node().args[0]
    if not isinstance(result, fx.Node):
        raise ValueError("the network must give one tensor; wrap it in a module that picks one of its outputs")
    return result


def _extent(reach: Reach) -> tuple[int, ...]:
    """Maps with equal extents have equal sizes for any input."""
    sizes = zip(reach.padding, reach.end_padding, reach.field, strict=True)
    return (*reach.stride, *(2 * padding + end - field for padding, end, field in sizes))


def _window_of_module(node: fx.Node, module: nn.Module) -> Window | None:
    if isinstance(module, nn.Conv2d):
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise ValueError(f"{node.name}: a convolution must be padded with a number of zeros, got {module}")
        sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
        return _window("conv", *sizes)
    if isinstance(module, nn.MaxPool2d):
        pool = (module.kernel_size, module.stride, module.padding, module.dilation)
        return _window("max_pool", *pool, module.ceil_mode)
    if isinstance(module, nn.AvgPool2d):
        _check_average(node, module.count_include_pad, module.divisor_override)
        return _window("avg_pool", module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode)
    if isinstance(module, POINTWISE_MODULES):
        return None
    raise ValueError(f"{node.name}: {module} is neither a convolution or pooling, nor known to work pixel by pixel")


def _window_of_pooling(node: fx.Node) -> Window:
    kind = POOLINGS[node.target]
    last = ("dilation",) if kind == "max_pool" else ("ceil_mode", "count_include_pad", "divisor_override")
    names = ("input", "kernel_size", "stride", "padding", *last)
    options: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if kind == "avg_pool":
        _check_average(node, options.get("count_include_pad", True), options.get("divisor_override"))
    return _window(
        kind,
        options["kernel_size"],
        options.get("stride") or options["kernel_size"],
        options.get("padding", 0),
        options.get("dilation", 1),
        ceil_mode=options.get("ceil_mode", False),
    )


def _window_of_pad(node: fx.Node) -> Window:
    names = ("input", "pad", "mode", "value")
    options: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    left, right, top, bottom = (*options["pad"], 0, 0, 0, 0)[:4]
    if options.get("mode", "constant") != "constant" or options.get("value") or left or top or min(right, bottom) < 0:
        raise ValueError(f"{node.name}: a padding of its own must add zeros, after the last row and column only")
    return Window("pad", (1, 1), (1, 1), (0, 0), end_padding=(int(bottom), int(right)))


def _check_average(node: fx.Node, count_include_pad: object, divisor: object) -> None:
    if not count_include_pad or divisor is not None:
        raise ValueError(f"{node.name}: an average pooling must divide by the size of its window everywhere")


def _window(
    kind: Kind, kernel_size: Any, stride: Any, padding: Any, dilation: Any = 1, ceil_mode: bool = False
) -> Window:
    return Window(kind, _as_pair(kernel_size), _as_pair(stride), _as_pair(padding), _as_pair(dilation), bool(ceil_mode))


def _as_pair(size: Any) -> Pair:
    return (size, size) if isinstance(size, int) else _pair(size)


def _pair(values: Any) -> Pair:
    rows, columns = values
    return int(rows), int(columns)
