from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fcn.data.preprocessing import CAFFE_VGG, IMAGENET, Preprocessing


@pytest.fixture
def image() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_caffe_is_bgr_minus_the_mean(image: NDArray[np.uint8]) -> None:
    x = CAFFE_VGG(image)
    assert (x.shape, str(x.dtype)) == ((3, 5, 7), "torch.float32")
    red, green, blue = image[2, 3].tolist()
    assert x[:, 2, 3].tolist() == pytest.approx([blue - 104.007, green - 116.669, red - 122.679], abs=1e-4)


def test_imagenet(image: NDArray[np.uint8]) -> None:
    red, green, blue = image[4, 0].tolist()
    expected = [(red / 255 - 0.485) / 0.229, (green / 255 - 0.456) / 0.224, (blue / 255 - 0.406) / 0.225]
    assert IMAGENET(image)[:, 4, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_gray_in_color_out_and_back(image: NDArray[np.uint8]) -> None:
    gray = image[:, :, 0]
    repeated = np.repeat(gray[:, :, None], 3, axis=2)
    assert IMAGENET(gray).equal(IMAGENET(repeated))
    to_gray = Preprocessing((0.0,), (1.0,), "gray", scale=1.0)
    assert to_gray(gray).shape == (1, 5, 7)
    np.testing.assert_allclose(to_gray(image)[0].numpy(), np.asarray(Image.fromarray(image).convert("L")), atol=0.6)


def test_alpha_is_dropped(image: NDArray[np.uint8]) -> None:
    rgba = np.concatenate([image, np.full((5, 7, 1), 9, np.uint8)], axis=2)
    assert IMAGENET(rgba).equal(IMAGENET(image))


@pytest.mark.parametrize("color", [True, False])
def test_fit_standardizes_the_training_set(color: bool) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(low, high, (9, 4 + low, 3), dtype=np.uint8) for low, high in ((0, 100), (3, 256))]
    images = images if color else [image[:, :, 1] for image in images]
    fitted = Preprocessing.fit(iter(images))
    assert fitted.channel_order == ("rgb" if color else "gray")
    values = np.concatenate([fitted(image).numpy().reshape(fitted.channels, -1) for image in images], axis=1)
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(1), 1, atol=1e-5)


@pytest.mark.parametrize("depth", [np.float32, np.uint8])
def test_fit_standardizes_further_channels(depth: type) -> None:
    """Color with log depth, which varies by a fraction of 1, and color with HHA."""
    rng = np.random.default_rng(0)
    images = []
    for width in (4, 9):
        colors = rng.integers(0, 256, (7, width, 3))
        further = rng.normal(7.8, 0.1, (7, width, 1)) if depth == np.float32 else rng.integers(90, 256, (7, width, 3))
        images.append(np.concatenate((colors, further), 2).astype(depth))
    fitted = Preprocessing.fit(images)
    assert fitted.channels == images[0].shape[2]
    values = np.concatenate([fitted(image).numpy().reshape(fitted.channels, -1) for image in images], axis=1)
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(values.std(1), 1, atol=1e-4)
    with pytest.raises(ValueError, match=r"images of 3 and of [46] channels"):
        Preprocessing.fit([np.zeros((2, 2), np.uint8), images[0]])


def test_fit_of_a_constant_channel_is_finite() -> None:
    assert Preprocessing.fit([np.full((4, 4), 7, np.uint8)]) == Preprocessing((7 / 255,), (1.0,), "gray")


def test_further_channels_keep_their_order() -> None:
    """Color and HHA of NYUDv2: blue, green, red, then as they are."""
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 6), dtype=np.uint8)
    mean = (116.19, 97.203, 92.318, 132.431, 94.076, 118.477)
    x = Preprocessing(mean, (1.0,) * 6, "bgr", scale=1.0)(image)
    expected = image[:, :, [2, 1, 0, 3, 4, 5]] - np.array(mean)
    np.testing.assert_allclose(x.numpy(), expected.transpose(2, 0, 1), atol=1e-4)
    with pytest.raises(ValueError, match=r"image must be \[H, W, 6\], got shape \(5, 7, 3\)"):
        Preprocessing(mean, (1.0,) * 6, "bgr")(image[:, :, :3])


def test_wrong_images(image: NDArray[np.uint8]) -> None:
    wrong: list[tuple[type[Exception], Any]] = [
        (TypeError, image.astype(np.float32)),
        (TypeError, image.astype(np.int16)),
        (ValueError, image[None]),
        (ValueError, image[:, :, :2]),
    ]
    for error, value in wrong:
        with pytest.raises(error, match="image must be"):
            IMAGENET(value)
    with pytest.raises(ValueError, match="no pixel"):
        Preprocessing.fit([])


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="must have 1 values for 'gray'"):
        Preprocessing((0.0, 0.0), (1.0, 1.0), "gray")
    with pytest.raises(ValueError, match="channel_order"):
        Preprocessing((0.0,), (1.0,), "hsv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive"):
        Preprocessing((0.0,), (0.0,), "gray")
