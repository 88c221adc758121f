"""Exported ONNX graphs, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.files import eight_bits
from ..data.preprocessing import rgb
from ..data.resizing import resized_labels
from ..data.tasks import Task
from ..errors import DataError
from .description import Description


class OnnxPredictor:
    """A file of ``write_onnx`` as a function from images to label maps, on CPUs, with as many threads as PyTorch has.

    ``further`` and ``tile`` are those of a ``Predictor`` that has neither.
    ``DataError`` for a file that ``write_onnx`` did not write; ``ModuleNotFoundError`` without onnxruntime.
    """

    further: None = None
    tile: None = None

    def __init__(self, path: str | Path) -> None:
        import onnxruntime

        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common type
            raise DataError(f"{path}: ONNX Runtime cannot read it: {error}") from None
        try:
            self.description = Description.read(self._session.get_modelmeta().custom_metadata_map)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None
        self.preprocessing = self.description.preprocessing
        self.note = f"float32 by ONNX Runtime {onnxruntime.__version__}"

    @property
    def tasks(self) -> dict[str, Task]:
        """Classes and palette, by the empty name of a single task."""
        return {"": self.description.meaning}

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Labels ``[H, W]`` of images of any form that ``Predictor`` takes as an array; 16 bits are brought to 8 first.
        Of images that the network is to see reduced (``longest_side``), labels are those of the nearest pixel seen.

        Raises ``ValueError`` for an image that is too small, ``RuntimeError`` where ONNX Runtime fails.
        """
        return [
            resized_labels(self._label(self.preprocessing.reduced(pixels)), pixels.shape[:2])
            for pixels in (rgb(eight_bits(image, self.preprocessing.levels)) for image in images)
        ]

    def _label(self, image: np.ndarray) -> np.ndarray:
        smallest = self.description.smallest_image
        if min(image.shape[:2]) < smallest:
            height, width = image.shape[:2]
            raise ValueError(
                f"images must have at least {smallest} x {smallest} pixels for this network, got {width} x {height}"
            )
        try:
            labels: np.ndarray = self._session.run(["labels"], {"images": image[None]})[0][0]
        except Exception as error:  # its errors have no common type
            raise RuntimeError(f"ONNX Runtime: {error}") from None
        return labels
