"""Graphs of ONNX, of standard operators alone."""

from __future__ import annotations

import os
import textwrap

import torch

from ..errors import ConfigError
from ..files import replacing
from ..weights import Weights
from .description import Description
from .labeler import labeler
from .program import quiet, symbolic_sizes, traced

OPSET = 18
LARGEST = 2**31 - 1
"""Bytes that a file of ONNX holds, a message of Protocol Buffers."""


def write_onnx(path: str | os.PathLike[str], weights: Weights, *, confidence: bool = False, license: str = "") -> None:
    """Writes one file of opset 18, of standard operators: from ``images``, uint8 RGB ``[batch, height, width, 3]``, to
    ``labels`` ``[batch, height, width]``, uint8 (int64 above 256 classes), and with ``confidence`` their probability,
    float32. The model's ``metadata_props`` say what it is (``Description``).

    Raises ``ConfigError`` for a network of several tasks, of further channels or of 2 GB, and for one that no graph can
    hold for all sizes; ``ModuleNotFoundError`` without onnxscript.
    """
    import onnx_ir
    import onnxscript  # noqa: F401  (torch.onnx would say it in many lines)

    size = sum(tensor.nbytes for tensor in weights.model.state_dict().values())
    if size > LARGEST:
        raise ConfigError(f"this network has {size / 2**30:.1f} GB of weights, and a file of ONNX holds less than 2 GB")
    outputs = ["labels", "confidence"][: 1 + confidence]
    with quiet(), torch.no_grad():
        # ONNX knows none of our operators, so the reference is what it is given.
        program = traced(labeler(weights, confidence), backend="reference")
        try:
            with symbolic_sizes():
                exported = torch.onnx.export(
                    program, input_names=["images"], output_names=outputs, opset_version=OPSET, verbose=False
                )
        except torch.onnx.OnnxExporterError as error:  # of a network of others
            why = textwrap.shorten(str(error.__cause__ or error), 300)
            raise ConfigError(
                f"{weights.model.config.backbone}: torch.onnx cannot translate this network: {why}"
            ) from error
    assert exported is not None
    model = exported.model
    axes = ("batch", "height", "width")
    model.graph.inputs[0].shape = onnx_ir.Shape((*axes, 3))
    for output in model.graph.outputs:
        output.shape = onnx_ir.Shape(axes)
    model.metadata_props.update(Description.of(weights, license).properties())
    for node in model.graph.all_nodes():  # where in which file of this machine each was traced
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    with replacing(path) as partial:
        exported.save(partial, external_data=False)
