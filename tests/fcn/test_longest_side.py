"""Large images, which a network sees reduced and labels at their own size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import fcn
from fcn.cli import main
from fcn.data import ArrayDataset, Augmentation, training_loader
from fcn.data.preprocessing import Preprocessing
from fcn.data.resizing import reduced_size
from fcn.networks.scores import Scores
from fcn.recipes.config import load_recipe
from fcn.training.run import train
from fcn_kernels import BilinearGrid


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), longest=st.integers(1, 600))
def test_sizes(height: int, width: int, longest: int) -> None:
    size = reduced_size((height, width), longest)
    assert min(size) >= 1
    if max(height, width) <= longest:
        assert size == (height, width)
    else:
        assert max(size) == longest
        assert abs(size[0] * max(height, width) - height * longest) <= max(height, width)  # the proportions, to a pixel


@given(
    coarse=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seen=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
def test_scores_at_another_size_are_those_of_an_interpolation(
    coarse: tuple[int, int], seen: tuple[int, int], size: tuple[int, int]
) -> None:
    """From coarse scores that cover the image, what the image saw in between does not matter."""
    values = torch.randn(2, 3, *coarse, dtype=torch.float64)
    scores = Scores(values, BilinearGrid.interpolate(coarse, seen)).at(size)
    wanted = F.interpolate(values, size, mode="bilinear")
    torch.testing.assert_close(scores.logits(), wanted)
    assert scores.at(size) is scores


def test_scores_of_transposed_grids_sample_where_the_pixels_lie() -> None:
    """A row of scores that grow by 1 from pixel to pixel, seen at half the size."""
    coarse = torch.arange(12.0).expand(1, 1, 12, 12)
    seen = Scores(coarse, BilinearGrid.transposed(2, 4, (9, 9)))
    doubled = seen.at((18, 18)).logits()[0, 0, 5]
    # Pixel 2y and 2y + 1 of the original lie a quarter of a seen pixel before and behind y.
    steps = seen.logits()[0, 0, 5].diff()
    torch.testing.assert_close(steps, torch.full((8,), 0.5))
    torch.testing.assert_close(doubled.diff(), torch.full((17,), 0.25))
    torch.testing.assert_close(doubled.view(9, 2).mean(1), seen.logits()[0, 0, 5])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_are_averaged_and_labels_are_not(dtype: type) -> None:
    high = np.iinfo(dtype).max
    image = np.zeros((40, 80, 3), dtype)
    image[:, ::2] = high  # stripes of one pixel
    prepared = Preprocessing((0.0,) * 3, (1.0,) * 3, longest_side=20)
    small = prepared.reduced(image)
    assert (small.shape, small.dtype) == ((10, 20, 3), dtype)
    assert abs(float(small.mean()) / high - 0.5) < 0.05
    assert prepared.reduced(small) is small
    target = np.tile(np.array([3, 200], np.uint8), (40, 40))
    data = ArrayDataset([{"image": image, "target": target, "name": "a"}], ["a"] * 201, [(0, 0, 0)] * 201)
    (batch,) = training_loader(data, prepared, Augmentation(), batch_size=1, seed=0)
    assert batch[0]["image"].shape == (1, 3, 10, 20)
    assert set(batch[0]["target"].unique().tolist()) <= {3, 200}
    assert batch[0]["target"].shape == (1, 10, 20)


def test_from_training_to_prediction(shapes: Path, recipe_file: Path, tmp_path: Path) -> None:
    """Twice as large images, of which the network sees what it sees of the originals."""
    root = tmp_path / "doubled"
    for path in shapes.rglob("*.png"):
        copy = root / path.relative_to(shapes)
        copy.parent.mkdir(parents=True, exist_ok=True)
        image = Image.open(path)
        image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(copy)
    (root / "classes.txt").write_bytes((shapes / "classes.txt").read_bytes())
    options = ["--stages.stride=[8]", "--stages.epochs=[12]", "--stages.lr=[0.01]", "--model.dropout=0"]
    small, large = (
        train(
            load_recipe(recipe_file, [*options, f"--data.root={data}", f"--trainer.run_dir={tmp_path / name}", *more])
        )
        for data, name, more in ((shapes, "a", ()), (root, "b", ("--data.longest_side=64",)))
    )
    assert fcn.load_weights(large).preprocessing.longest_side == 64
    same, predictor = fcn.Predictor(small, precision="float32"), fcn.Predictor(large, precision="float32")
    image = np.asarray(Image.open(root / "val/images/val0.png"))
    labels = predictor(image)
    assert labels.shape == image.shape[:2]
    # Doubled by the nearest pixel and averaged again, training images are those of the other run.
    agreement = (labels[::2, ::2] == same(image[::2, ::2])).mean()
    assert agreement > 0.9
    tiled = fcn.Predictor(large, precision="float32", tile=32)(image)
    assert (tiled == labels).mean() > 0.999
    assert main(["evaluate", str(large), "--split", "val", "--out", str(tmp_path / "m.json")]) == 0
