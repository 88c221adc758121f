"""Experiments of the paper as commands: ``fcn experiment NAME``.

An experiment is the module of this package of that name, with - for _: ``add_arguments(parser)`` declares its options,
and ``run(options)`` gives a ``Result``. The options ``--device`` and ``--out`` are there for all.
"""

import importlib
from types import ModuleType

EXPERIMENTS = {
    "timing": "Table 1: size, receptive field and time of each network; and what makes a network fast here",
    "efficiency": "one convolutional pass over an image against classifying it patch by patch (section 3.1)",
    "rarefaction": "dense scores: the strided network, shift-and-stitch, and rarefied filters (section 3.2)",
    "skips": "Table 2: what skips add, FCN-32s-fixed, -32s, -16s and -8s (section 4.2)",
    "sampling": "figure 5: training on whole images against sampling the loss (section 4.4)",
    "upper-bound": "labels downsampled and upsampled again: no network of that stride can do better",
    "deconv": "upsampling filters that stay bilinear against learned ones (sections 3.3 and 4.3)",
}
"""What each shows, by name."""


def experiment(name: str) -> ModuleType:
    """The module of an experiment."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
