"""Batch normalization as part of the convolutions before it, for inference."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .net import Net


@torch.no_grad()
def folded(net: Net) -> Net:
    """The network without its batch normalizations, whose statistics and scales become weights and biases.

    In evaluation mode the same function but for rounding. Other tensors are shared; a network without any is given back
    as it is.

    Raises ``ValueError`` in training mode, where normalization depends on the batch.
    """
    normalized = [layer for layer in net.layers if "batch_norm" in layer.then]
    if not normalized:
        return net
    if net.training:
        raise ValueError("batch normalization folds into weights in evaluation mode only: call eval() first")
    state = net.state_dict()
    for layer in normalized:
        norm = net.get_submodule(f"{layer.name}_norm")
        statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        weight, bias = fuse_conv_bn_weights(state[f"{layer.name}.weight"], None, *statistics)  # type: ignore[arg-type]
        state |= {f"{layer.name}.weight": weight, f"{layer.name}.bias": bias}
    layers = [replace(layer, then=tuple(each for each in layer.then if each != "batch_norm")) for layer in net.layers]
    with torch.device("meta"):
        result = Net(layers, net.taps, net.in_channels, net.dropout)
    result.load_state_dict({name: state[name] for name in result.state_dict()}, assign=True)
    return result.eval().requires_grad_(False)
