"""Labels for images, and scores for a labeled split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from .data import DataError, SegmentationDataset, evaluation_loader, read_image
from .data.files import pil_to_array, to_uint8
from .metrics import Metrics, SegmentationMetrics
from .weights import Weights, load_weights

ImageLike = str | Path | Image.Image | np.ndarray


class Predictor:
    """A trained network as a function from an image of any size to its label map.

    Weights: a file of ``save_weights``, or one already loaded. ``device``: the GPU if there is one, unless given.
    """

    def __init__(self, weights: str | Path | Weights, device: str | torch.device | None = None) -> None:
        loaded = weights if isinstance(weights, Weights) else load_weights(weights)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = loaded.model.to(self.device).eval()
        self.classes, self.palette, self.preprocessing = loaded.classes, loaded.palette, loaded.preprocessing

    @torch.inference_mode()
    def __call__(self, image: ImageLike) -> np.ndarray:
        """Labels ``[H, W]`` (uint8; int64 above 256 classes) at the image's own size.

        ``image``: a path, a PIL image of any mode, or an array ``[H, W]`` or ``[H, W, 1 | 3 | 4]`` (RGB order) of
        uint8, uint16 or bool. Raises ``DataError`` for anything else, naming the file.
        """
        pixels = self.preprocessing(to_array(image))[None].to(self.device)
        labels = self.model.scores(pixels).labels()
        assert isinstance(labels, torch.Tensor)
        return labels[0].cpu().numpy()

    @torch.inference_mode()
    def evaluate(self, dataset: SegmentationDataset, *, workers: int = 0, progress: bool = True) -> Metrics:
        """One confusion matrix over the whole data set, each image at its own size.

        Raises ``DataError`` if the data set's classes are not those of the weights.
        """
        if list(dataset.classes) != list(self.classes):
            raise DataError(
                f"the data have classes {', '.join(dataset.classes)}; "
                f"the weights were trained for {', '.join(self.classes)}"
            )
        metrics = SegmentationMetrics(len(self.classes), dataset.ignore_index).to(self.device)
        loader = evaluation_loader(dataset, self.preprocessing, workers=workers)
        for batch in tqdm(loader, desc="evaluate", unit="image", disable=not progress, dynamic_ncols=True):
            for group in batch:
                labels = self.model.scores(group["image"].to(self.device)).labels()
                metrics.update(labels, group["target"].to(self.device))
        return metrics.compute()


def to_array(image: ImageLike) -> np.ndarray:
    """An image in any of the accepted forms as uint8 ``[H, W]``, ``[H, W, 3]`` or ``[H, W, 4]``."""
    if isinstance(image, (str, Path)):
        return read_image(image)
    return pil_to_array(image) if isinstance(image, Image.Image) else to_uint8(np.asarray(image))
