"""Fully Convolutional Networks for Semantic Segmentation (Long, Shelhamer, Darrell; CVPR 2015, TPAMI 2016)."""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import what_to_install

if TYPE_CHECKING:
    from fcn_kernels import __version__

    from .data.preprocessing import Preprocessing
    from .evaluation.metrics import Metrics, SegmentationMetrics, metrics_from_confusion
    from .export.onnx import write_onnx
    from .export.program import write_program
    from .inference.predictor import Predictor
    from .networks.backbones import convolutionalize, register_trunk
    from .networks.models import FCN, ModelConfig, build_model, late_fusion
    from .networks.rarefaction import rarefy, shift_and_stitch
    from .networks.scores import Scores
    from .notebook import evaluate, train
    from .weights import Weights, convert, load_weights, save_weights

__all__ = [
    "FCN",
    "Metrics",
    "ModelConfig",
    "Predictor",
    "Preprocessing",
    "Scores",
    "SegmentationMetrics",
    "Weights",
    "__version__",
    "build_model",
    "convert",
    "convolutionalize",
    "evaluate",
    "late_fusion",
    "load_weights",
    "metrics_from_confusion",
    "rarefy",
    "register_trunk",
    "save_weights",
    "shift_and_stitch",
    "train",
    "write_onnx",
    "write_program",
]

# Where each name lives. A module is imported when a name of its is first used: `import fcn` and `fcn --help` wait for
# neither torch nor whatever the other rooms need.
_HOMES = {
    "fcn_kernels": ("__version__",),
    ".data.preprocessing": ("Preprocessing",),
    ".evaluation.metrics": ("Metrics", "SegmentationMetrics", "metrics_from_confusion"),
    ".export.onnx": ("write_onnx",),
    ".export.program": ("write_program",),
    ".inference.predictor": ("Predictor",),
    ".networks.backbones": ("convolutionalize", "register_trunk"),
    ".networks.models": ("FCN", "ModelConfig", "build_model", "late_fusion"),
    ".networks.rarefaction": ("rarefy", "shift_and_stitch"),
    ".networks.scores": ("Scores",),
    ".notebook": ("evaluate", "train"),
    ".weights": ("Weights", "convert", "load_weights", "save_weights"),
}


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(home, __name__)
    except ModuleNotFoundError as error:
        # The kernels need torch and numpy alone, so that the rest may not be installed.
        needed = what_to_install(error)
        if needed is None:
            raise
        raise ModuleNotFoundError(f"fcn.{name} needs {needed}", name=error.name) from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
