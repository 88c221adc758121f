"""Any network as a trunk: its graph of layers is traced, and the maps that are scored are found by their strides."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from fcn_kernels import CoordMap

from ..geometry import Kind, Layer, coord_map, paths
from ..graph import MERGES, Pair, Window, trace, window_of

LIBRARIES = ("torchvision", "timm")
SIZE = 256
"""Height and width of the image on which maps are told apart by their sizes."""
KINDS: dict[str, Kind] = {"conv": "conv", "max_pool": "pool", "avg_pool": "avg_pool"}

_registered: dict[str, Callable[[], nn.Module]] = {}


def register_trunk(name: str, build: Callable[[], nn.Module]) -> None:
    """Makes ``name`` a backbone: the network of ``build()``, from images ``[N, 3, H, W]``, traced.

    A file of weights holds the name alone, so whoever loads it registers the same network first.
    """
    if not name.isidentifier():
        raise ValueError(f"a trunk's name must be an identifier, such as my_net, got {name!r}")
    _registered[name] = build


def is_traced(name: str) -> bool:
    """Whether ``name`` is ``LIBRARY:NETWORK``, or was registered."""
    return name in _registered or name.partition(":")[0] in LIBRARIES


def network_named(name: str, *, pretrained: bool = False) -> nn.Module:
    """The network ``torchvision:NAME``, ``timm:NAME`` or one registered.

    ``pretrained``: with the library's own weights, which it may download. Raises ``ValueError`` where the library is
    absent or has no such network.
    """
    library, _, model = name.partition(":")
    if name in _registered:
        if pretrained:
            raise ValueError(f"{name}: a registered network has no library to take weights from")
        return _registered[name]()
    try:
        module = importlib.import_module("torchvision.models" if library == "torchvision" else library)
    except Exception as error:  # A torchvision built for another torch raises RuntimeError.
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        raise ValueError(f"{name}: {library} {why}; pip install {library}") from None
    try:
        made: nn.Module
        if library == "torchvision":
            made = module.get_model(model, weights="DEFAULT" if pretrained else None)
        else:
            made = module.create_model(model, pretrained=pretrained)
    except Exception as error:  # Each library has its own types of errors for names it does not know.
        raise ValueError(f"{name}: {library} makes no such network: {error}") from None
    return made


class Traced(nn.Module):
    """The part of a network up to the last maps of some strides, with the interface of ``Net``.

    Where the windows of all layers before a map are known, its coordinates are exact, and so are crops and grids. Else
    (attention, squeeze-and-excitation, layer normalization of permuted maps) ``exact`` is False, and its samples are
    taken to lie as ``F.interpolate`` lays them: cell ``u`` in the middle of ``stride`` pixels from ``u * stride`` on.
    The network is traced in evaluation mode: drops that are modules act in training, those written as functions never.
    """

    def __init__(self, name: str, net: nn.Module, strides: Sequence[int]) -> None:
        """Raises ``ValueError`` for a network without a fixed graph of layers or a map of each of ``strides``."""
        super().__init__()
        try:
            graph = trace(net.eval())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        self.in_channels = 3
        try:
            with torch.no_grad():
                _Shapes(graph).run(torch.zeros(1, 3, SIZE, SIZE, device="cpu"))
        except Exception as error:  # Whatever the network's own code raises.
            why = str(error).partition("\n")[0]
            raise ValueError(f"{name}: it does not take images [1, 3, {SIZE}, {SIZE}]: {why}") from None
        found = {stride: _last(graph, stride) for stride in strides}
        missing = [stride for stride, node in found.items() if node is None]
        if missing:
            there = sorted({SIZE // side for side in map(_side, graph.graph.nodes) if side})
            raise ValueError(
                f"{name}: it has no map of stride {' and '.join(map(str, missing))}; there are strides "
                f"{', '.join(map(str, there)) or 'none'}"
            )
        taps = {stride: node for stride, node in found.items() if node is not None}
        self.taps = tuple(node.name for node in taps.values())
        self.net = _cut(graph, list(taps.values()))
        geometry = _Geometry(self.net)
        self.exact = not geometry.unknown
        if self.exact:
            chains = paths(geometry.layers)
            self.layers = tuple(geometry.layers)
            self._paths = chains | {node.name: chains[geometry.source[node]] for node in taps.values()}
            self._owners = geometry.owners
        else:
            self.layers = tuple(
                Layer(node.name, "conv", _channels(node), stride, stride) for stride, node in taps.items()
            )
            self._paths = {layer.name: (layer,) for layer in self.layers}
            self._owners = {self.taps[0]: sum(p.numel() for p in self.net.parameters())}
            warnings.warn(
                f"{name}: the geometry of {geometry.unknown} is unknown; maps are sampled as by F.interpolate",
                stacklevel=2,
            )

    def parameters_of(self, layer: str) -> int:
        """How many numbers a layer learns, and what follows it pixel by pixel; where layers are not known, all of them
        belong to the deepest tap."""
        return self._owners.get(layer, 0)

    def path(self, tap: str) -> tuple[Layer, ...]:
        """The layers from the image to ``tap``; where branches meet, those that see most."""
        return self._paths[tap]

    def channels(self, tap: str) -> int:
        return self._paths[tap][-1].channels

    def coord_map(self, tap: str) -> CoordMap:
        return coord_map(self._paths[tap])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``[N, 3, H, W]`` to ``{tap: [N, channels, h, w]}``."""
        maps: dict[str, Tensor] = self.net(images.to(memory_format=torch.channels_last))
        return maps


class _Shapes(fx.Interpreter):
    """Notes the shape of each tensor on its node."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result


class _Geometry:
    """The layers of a graph, as far as their geometry is known."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.layers: list[Layer] = []
        self.source: dict[fx.Node, str] = {}
        """The layer whose map's samples a node's map has; "" is the image."""
        self.owners: dict[str, int] = {}
        """Parameters of each layer."""
        self.unknown = ""
        """The first node whose geometry is not known."""
        for node in graph.graph.nodes:
            try:
                self._add(node)
            except ValueError:
                self.unknown = str(node.name)
                break

    def _add(self, node: fx.Node) -> None:
        """``ValueError`` where its geometry is unknown."""
        inputs = [each for each in node.all_input_nodes if each.op != "get_attr"]
        if node.op in ("get_attr", "output"):
            return
        if node.op == "placeholder":
            self.source[node] = ""
            return
        window = window_of(self.graph, node)
        sources = [self.source[each] for each in inputs]
        if not sources or (not sources[0] and self.layers) or len(node.meta["shape"]) != 4:
            raise ValueError(f"{node.name}: not a map that follows from the image")
        if window is not None:
            self.layers.append(_windowed(node, window, sources[0]))
        elif len(sources) > 1:
            if node.target not in MERGES or (node.target is torch.cat and (*node.args, 0)[1] != 1):
                raise ValueError(f"{node.name}: it joins maps in another way")
            kind: Kind = "concat" if node.target is torch.cat else "sum"
            self.layers.append(Layer(node.name, kind, _channels(node), inputs=tuple(dict.fromkeys(sources))))
            paths(self.layers)  # branches that are not aligned have no common geometry
        self.source[node] = self.layers[-1].name if window is not None or len(sources) > 1 else sources[0]
        self._own(node)

    def _own(self, node: fx.Node) -> None:
        layer, count = self.source[node], 0
        if node.op == "call_module":
            count = sum(p.numel() for p in self.graph.get_submodule(str(node.target)).parameters())
        for each in node.all_input_nodes:
            if each.op == "get_attr":
                count += self.graph.get_parameter(str(each.target)).numel()
        self.owners[layer] = self.owners.get(layer, 0) + count


def _windowed(node: fx.Node, window: Window, source: str) -> Layer:
    pairs: list[Pair] = [window.kernel_size, window.stride, window.padding, window.dilation]
    if any(rows != columns for rows, columns in pairs) or window.kind == "pad":
        raise ValueError(f"{node.name}: rows and columns differ")
    kernel_size, stride, padding, dilation = (rows for rows, _ in pairs)
    return Layer(
        node.name,
        KINDS[window.kind],
        _channels(node),
        kernel_size,
        stride,
        padding,
        dilation,
        inputs=(source,) if source else (),
        rounds_down=not window.ceil_mode,
    )


def _side(node: fx.Node) -> int:
    """Height of a node's square map, 0 for anything else."""
    shape: tuple[int, ...] = node.meta.get("shape", ())
    square = (
        len(shape) == 4
        and shape[2] == shape[3] > 1
        and SIZE % shape[2] == 0
        and node.op not in ("placeholder", "output")
    )
    return int(shape[2]) if square else 0


def _last(graph: fx.GraphModule, stride: int) -> fx.Node | None:
    """The last map of a stride on which all that follows depends: the end of a stage, not a branch of a block.

    Where no map is such (a decoder joins earlier ones), the last of the stride.
    """
    nodes = [node for node in graph.graph.nodes if node.op != "get_attr"]
    order = {node: index for index, node in enumerate(nodes)}
    found, needed = None, 0  # `needed`: the last node that reads what came before this one
    for index, node in enumerate(nodes):
        if _side(node) * stride == SIZE and needed <= index:
            found = node
        needed = max(needed, *(order[user] for user in node.users), 0)
    return found or next((node for node in reversed(nodes) if _side(node) * stride == SIZE), None)


def _channels(node: fx.Node) -> int:
    return int(node.meta["shape"][1])


def _cut(graph: fx.GraphModule, taps: list[fx.Node]) -> fx.GraphModule:
    """The graph up to ``taps``, which it gives by name; what they do not need is left out."""
    output = graph.graph.output_node()
    output.args = ({node.name: node for node in taps},)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph
