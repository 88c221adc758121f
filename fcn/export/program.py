"""Graphs of PyTorch (``torch.export``) for images of any number and size."""

from __future__ import annotations

import json
import logging
import os
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shapes
from torch.utils._sympy.value_ranges import ValueRanges

import fcn_kernels

from ..errors import ConfigError
from ..files import replacing
from ..weights import Weights
from .description import Description
from .labeler import Labeler, labeler

PROPERTIES = "fcn.json"
"""Name of the file of properties within a ``.pt2``."""
AGREEMENT = 0.999
"""Least part of a small image's labels that a graph must share with the network before it is written: in another order
of the same sums, a pixel between two classes may fall to the other."""


def write_program(
    path: str | os.PathLike[str], weights: Weights, *, confidence: bool = False, license: str = ""
) -> None:
    """Writes a ``.pt2`` of ``torch.export``: from uint8 RGB images ``[N, H, W, 3]`` to labels ``[N, H, W]``, uint8
    (int64 above 256 classes), and with ``confidence`` their probability, float32.

    It calls the operators of ``fcn_kernels`` by the backend that runs here. ``fcn.json`` in it says what it is
    (``Description``).
    Raises ``ConfigError`` for a network of several tasks or further channels, and for one that no graph can hold for
    all sizes.
    """
    with quiet():
        program = traced(labeler(weights, confidence))
        properties = {PROPERTIES: json.dumps(Description.of(weights, license).properties())}
        with replacing(path) as partial, partial.open("wb") as file:
            torch.export.save(program, file, extra_files=properties)


def traced(module: Labeler, backend: str = "auto") -> ExportedProgram:
    """``module`` for images of any number and size from ``smallest_image`` on, checked at three sizes.

    Raises ``ConfigError`` where the network cannot be followed, or not for all sizes.
    """
    smallest = module.model.smallest_image
    side = 2 * max(smallest, 32) + 1  # no map of one pixel, which tracing would take for a constant
    images = torch.zeros(2, side, side + 1, 3, dtype=torch.uint8)
    try:
        with torch.no_grad(), fcn_kernels.use_backend(backend), symbolic_sizes():
            program = torch.export.export(
                module,
                (images,),
                dynamic_shapes=(dict.fromkeys((0, 1, 2), Dim.DYNAMIC),),
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # Whatever the network's own code raises when it meets a symbolic size.
        why = textwrap.shorten(str(error), 300)
        raise ConfigError(f"{module.model.config.backbone}: torch.export cannot follow this network: {why}") from error
    _relax(program, smallest)
    _check(program, module)
    return program


@contextmanager
def symbolic_sizes() -> Iterator[None]:
    """Sizes are not told apart from 1 while a graph is made: with it, tracing GoogLeNet takes a tenth of the time."""
    with shapes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield


def _relax(program: ExportedProgram, smallest: int) -> None:
    """Takes from the graph what tracing assumed of sizes. To choose the memory format of a map, PyTorch asks whether it
    has more than one pixel, and the graph would refuse images of less than 33 pixels ever after. Whether the graph
    depends on what it assumes ``_check`` sees."""
    (images,) = program.graph_signature.user_inputs
    placeholder = next(node for node in program.graph.nodes if node.name == images)
    for axis, least in enumerate((1, smallest, smallest)):
        symbol = placeholder.meta["val"].shape[axis].node.expr
        program.range_constraints[symbol] = ValueRanges(least, program.range_constraints[symbol].upper)
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def _check(program: ExportedProgram, module: Labeler) -> None:
    run, smallest = program.module(), module.model.smallest_image
    generator = torch.Generator().manual_seed(0)
    for size in ((1, smallest, smallest), (1, smallest + 38, smallest + 64), (3, smallest + 95, smallest + 30)):
        images = torch.randint(256, (*size, 3), generator=generator, dtype=torch.uint8)
        with torch.no_grad():
            wanted = _labels(module(images))
            try:
                found = _labels(run(images))
                agreement = float((found == wanted).double().mean()) if found.shape == wanted.shape else 0.0
            except RuntimeError:  # shapes that do not fit: a size was taken for a constant
                agreement = 0.0
        if agreement < AGREEMENT:
            raise ConfigError(
                f"{module.model.config.backbone}: the graph of this network is not right for images of all sizes (of "
                f"{size[2]} x {size[1]} pixels it is not), so it cannot be exported"
            )


def _labels(output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch says of its own inner works while it makes a graph."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning, UserWarning))
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
