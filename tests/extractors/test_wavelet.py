from collections.abc import Callable
from math import log

import pytest
import torch
from torch import Tensor

from lightning_synthqual.extractors import load
from lightning_synthqual.extractors.wavelet import WaveletStatistics, haar

Pictures = Callable[..., Tensor]
FLOOR = 0.5 / 127.5
LUMA = slice(0, 192)
CHROMA = slice(192, 216)


def features(images: Tensor) -> Tensor:
    return load("wavelet")(images)["features"]


def luma(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, amplitude, sparsity = features(images)[:, LUMA].split(64, dim=1)
    return mean, amplitude, sparsity


@pytest.mark.parametrize("channels", [1, 2])
def test_a_step_conserves_energy(channels: int) -> None:
    x = torch.randn(3, channels, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bands = haar(x)
    assert bands.shape == (3, 4 * channels, 4, 3)
    energy = bands.square().mean(dim=(2, 3)).sum(dim=1)
    torch.testing.assert_close(energy, x.square().mean(dim=(2, 3)).sum(dim=1))


def test_a_step_of_one_square_in_closed_form() -> None:
    x = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    assert haar(x).flatten().tolist() == [15 / 4, -5 / 4, -9 / 4, 3 / 4]


def test_the_statistics_conserve_energy(pictures: Pictures) -> None:
    images = pictures(4, 16, 24)
    _, amplitude, _ = luma(images)
    energy = ((2 * amplitude.double()).exp() - FLOOR**2).sum(dim=1)
    expected = (images.double().mean(dim=1) / 127.5 - 1).square().mean(dim=(1, 2))
    torch.testing.assert_close(energy, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_a_constant_image_has_only_a_mean(level: int) -> None:
    mean, amplitude, sparsity = luma(torch.full((1, 3, 16, 16), level, dtype=torch.uint8))
    value = level / 127.5 - 1
    expected = torch.zeros(1, 64)
    expected[0, 0] = value
    torch.testing.assert_close(mean, expected)
    expected = torch.full((1, 64), log(FLOOR))
    expected[0, 0] = 0.5 * log(value**2 + FLOOR**2)
    torch.testing.assert_close(amplitude, expected)
    expected = torch.zeros(1, 64)
    expected[0, 0] = 0.25 * log(value**4 + FLOOR**4) - 0.5 * log(value**2 + FLOOR**2)
    torch.testing.assert_close(sparsity, expected, atol=1e-6, rtol=1e-5)


def test_a_checkerboard_lies_in_the_diagonal_band() -> None:
    board = 255 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2 == 0)
    mean, amplitude, _ = luma(board.to(torch.uint8).expand(1, 3, -1, -1))
    expected = torch.zeros(1, 64)
    diagonal = int(mean.abs().argmax())
    expected[0, diagonal] = 1.0
    torch.testing.assert_close(mean, expected, atol=1e-6, rtol=0)
    assert diagonal != 0
    assert int((amplitude > -1).sum()) == 1


def test_stripes_of_either_direction_differ() -> None:
    stripes = (255 * (torch.arange(16) % 2)).to(torch.uint8).expand(1, 3, 16, 16)
    assert not torch.allclose(features(stripes), features(stripes.mT))


def test_grey_images_have_constant_chroma(pictures: Pictures) -> None:
    grey = pictures(5, 16, 16)[:, :1].expand(-1, 3, -1, -1)
    found = features(grey)[:, CHROMA]
    expected = torch.zeros(24)
    expected[8:16] = log(FLOOR)
    torch.testing.assert_close(found, expected.expand(5, 24), atol=1e-5, rtol=0)


def test_colour_changes_the_chroma(pictures: Pictures) -> None:
    images = pictures(1, 16, 16)
    swapped = images[:, [2, 0, 1]]
    torch.testing.assert_close(features(images)[:, LUMA], features(swapped)[:, LUMA], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(features(images)[:, CHROMA], features(swapped)[:, CHROMA], atol=0.01)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 13), (8, 8), (227, 227)])
def test_any_size_gives_finite_features(pictures: Pictures, size: tuple[int, int]) -> None:
    found = features(pictures(2, *size))
    assert found.shape == (2, WaveletStatistics.dimension)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()


def test_odd_sides_are_padded_by_their_border(pictures: Pictures) -> None:
    images = pictures(2, 7, 6)
    padded = torch.cat([images, images[:, :, -1:]], dim=2)
    padded = torch.cat([padded, padded[..., -1:], padded[..., -1:]], dim=3)
    torch.testing.assert_close(features(images), features(padded))


def test_the_order_of_the_batch_does_not_matter(pictures: Pictures) -> None:
    images, order = pictures(6, 24, 24), [3, 0, 5, 1, 4, 2]
    found = features(images)
    assert torch.equal(found, features(images))
    torch.testing.assert_close(features(images[order]), found[order])
    torch.testing.assert_close(torch.cat([features(image[None]) for image in images]), found)
    assert len(found.unique(dim=0)) == 6


def test_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'wavelet' has no weights, but `weights='x.pth'` was given"):
        load("wavelet", weights="x.pth")


def test_identity() -> None:
    identity = load("wavelet").identity
    assert (identity.name, identity.weights, identity.origin) == ("wavelet", "none", "none")
