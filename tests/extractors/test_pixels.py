from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_synthqual.extractors import load

Pictures = Callable[..., Tensor]


def features(images: Tensor) -> Tensor:
    return load("pixels")(images)["features"]


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
def test_features_are_block_means(pictures: Pictures, size: tuple[int, int]) -> None:
    images = pictures(3, *size)
    height, width = size[0] // 32, size[1] // 32
    expected = images.numpy().astype(np.float64).reshape(3, 3, 32, height, 32, width).mean(axis=(3, 5))
    found = features(images)
    assert (found.shape, found.dtype) == ((3, 3072), torch.float32)
    np.testing.assert_allclose(found.numpy(), expected.reshape(3, -1) / 127.5 - 1, atol=1e-6)


def test_one_pixel_fills_the_picture() -> None:
    found = features(torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1))
    torch.testing.assert_close(found.reshape(3, 1024), torch.tensor([[-1.0], [1.0], [-0.6]]).expand(3, 1024))


@pytest.mark.parametrize("size", [(16, 8), (32, 1)])
def test_small_pictures_are_enlarged_by_repeating(pictures: Pictures, size: tuple[int, int]) -> None:
    images = pictures(2, *size)
    enlarged = images.repeat_interleave(32 // size[0], dim=2).repeat_interleave(32 // size[1], dim=3)
    torch.testing.assert_close(features(images), features(enlarged))


@pytest.mark.parametrize("size", [(33, 47), (227, 227)])
def test_uneven_sizes_stay_within_the_range(pictures: Pictures, size: tuple[int, int]) -> None:
    found = features(pictures(2, *size))
    assert found.shape == (2, 3072)
    assert found.abs().max() <= 1


def test_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="'pixels' has no weights"):
        load("pixels", weights="x.pth")
