from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import functional as torchvision_functional

from lightning_synthqual.extractors import load
from lightning_synthqual.extractors.resize import (
    _float64_device,
    antialiased_bilinear,
    centre_crop,
    pillow,
    pillow_float,
    shortest_side,
    tensorflow1_bilinear,
)

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
PROTOCOLS = {"tf1": tensorflow1_bilinear, "antialias": antialiased_bilinear, "clean": pillow_float}

# Sum, sum weighted by (y * 299 + x) / 299^2, and values at four (y, x, c), of RandomState(seed).randint(0, 256,
# (h, w, 3)) resized to 299; printed by torch-fidelity 0.4.0, torchmetrics 1.9.0 and clean-fid 0.1.35.
PRINTED = {
    (1031, 17, 23): {
        "tf1": (
            33645081.48649514,
            17279170.916837715,
            {(188, 223, 2): 93.1256, (127, 165, 0): 130.4594, (196, 231, 2): 141.7062, (212, 7, 1): 102.4639},
        ),
        "antialias": (
            33710473.890470624,
            17292377.78579841,
            {(188, 223, 2): 74.0702, (127, 165, 0): 177.9732, (196, 231, 2): 103.4442, (212, 7, 1): 147.7723},
        ),
        "clean": (
            33706136.98396296,
            17289057.762622964,
            {(188, 223, 2): 57.2979, (127, 165, 0): 186.6165, (196, 231, 2): 103.4028, (212, 7, 1): 163.4653},
        ),
    },
    (1034, 320, 256): {
        "tf1": (
            34163046.97606486,
            17073709.653526925,
            {(86, 177, 0): 22.6965, (263, 149, 1): 126.5438, (137, 38, 0): 104.6303, (191, 148, 0): 109.7945},
        ),
        "antialias": (
            34162689.942147374,
            17073195.589970395,
            {(86, 177, 0): 28.094, (263, 149, 1): 130.1308, (137, 38, 0): 103.7707, (191, 148, 0): 113.474},
        ),
        "clean": (
            34164494.70703916,
            17073977.28356897,
            {(86, 177, 0): 22.6266, (263, 149, 1): 124.205, (137, 38, 0): 108.9449, (191, 148, 0): 108.435},
        ),
    },
}


def as_picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def as_image(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def black_and_white(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Pictures whose edges overshoot as far as any can."""
    generator = torch.Generator().manual_seed(seed)
    return 255 * torch.randint(0, 2, (count, 3, height, width), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("shape", PRINTED)
def test_the_protocols_print_what_their_authors_print(shape: tuple[int, int, int], protocol: str) -> None:
    seed, height, width = shape
    total, weighted, values = PRINTED[shape][protocol]
    image = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    resized = PROTOCOLS[protocol](torch.from_numpy(image).permute(2, 0, 1)[None], (299, 299))
    assert resized.dtype == torch.float32
    assert resized.double().sum().item() == pytest.approx(total, rel=1e-6)
    places = torch.arange(299 * 299, dtype=torch.float64).reshape(299, 299) / 299**2
    assert (resized.double() * places).sum().item() == pytest.approx(weighted, rel=1e-6)
    for (y, x, c), value in values.items():
        assert resized[0, c, y, x].item() == pytest.approx(value, abs=0.005)


# Wide and square ones: from version 13 on, Pillow filters the columns of tall pictures first, which clamps otherwise.
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("before", [(1, 1), (1, 5), (32, 32), (17, 23), (223, 224), (224, 224), (240, 320), (500, 500)])
@pytest.mark.parametrize("after", [(224, 224), (7, 5), (1, 1)])
def test_pixels_are_pillows_to_the_bit(before: tuple[int, int], after: tuple[int, int], interpolation: str) -> None:
    images = black_and_white(2, *before)
    expected = [as_image(as_picture(image).resize(after[::-1], FILTERS[interpolation])) for image in images]
    resized = pillow(images, after, interpolation)
    assert resized.dtype == torch.uint8
    assert torch.equal(resized, torch.stack(expected))


def test_tall_pictures_are_filtered_along_rows_first() -> None:
    images = black_and_white(1, 320, 256)
    rows_first = pillow(pillow(images, (320, 224)), (224, 224))
    assert torch.equal(pillow(images, (224, 224)), rows_first)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("before", [(1, 1), (32, 32), (320, 256), (299, 100)])
def test_float_pixels_are_pillows_to_the_last_place(before: tuple[int, int], interpolation: str) -> None:
    (image,) = black_and_white(1, *before)
    channels = [Image.fromarray(channel.float().numpy()) for channel in image]
    resized = [np.array(channel.resize((299, 299), FILTERS[interpolation])) for channel in channels]
    expected = torch.from_numpy(np.stack(resized)).clamp(0, 255)
    torch.testing.assert_close(pillow_float(image[None], (299, 299), interpolation)[0], expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("resize", [pillow, pillow_float])
def test_an_unchanged_size_changes_nothing(resize) -> None:
    images = black_and_white(2, 9, 11)
    assert torch.equal(resize(images, (9, 11)).float(), images.float())


def test_autocast_does_not_round_pixels() -> None:
    images = black_and_white(1, 20, 30)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = pillow(images, (24, 24))
    assert torch.equal(half, pillow(images, (24, 24)))


@given(st.integers(0, 255), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_plain_picture_stays_plain(grey: int, height: int, width: int, to_height: int, to_width: int) -> None:
    images = torch.full((1, 3, height, width), grey, dtype=torch.uint8)
    for resize in (pillow, *PROTOCOLS.values()):
        resized = resize(images, (to_height, to_width))
        assert resized.shape == (1, 3, to_height, to_width)
        torch.testing.assert_close(resized.float(), torch.full_like(resized, grey).float(), rtol=0, atol=1e-3)


def test_a_picture_is_the_same_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = black_and_white(5, 20, 30)
    whole = pillow(images, (24, 24))
    monkeypatch.setattr("lightning_synthqual.extractors.resize._CHUNK_BYTES", 8 * 3 * 24 * 30 * 2)
    assert torch.equal(pillow(images, (24, 24)), whole)
    assert torch.equal(pillow(images[3:4], (24, 24)), whole[3:4])


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_the_shorter_side_and_the_crop_are_torchvisions(height: int, width: int, side: int) -> None:
    picture = Image.new("L", (width, height))
    size = shortest_side((height, width), side)
    assert size == torchvision_functional.resize(picture, side).size[::-1]
    image = torch.arange(size[0] * size[1]).reshape(1, 1, *size)
    assert torch.equal(centre_crop(image, (side, side)), torchvision_functional.center_crop(image, [side, side]))


def test_float64_is_computed_where_there_is_float64() -> None:
    assert _float64_device(torch.device("mps")) == torch.device("cpu")
    assert _float64_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


# CUDA operations without a deterministic form, which torch.use_deterministic_algorithms(True) refuses.
REFUSED = {"kthvalue", "median", "cumsum", "histc", "bincount", "scatter_add", "scatter_reduce", "put_", "index_add"}


class _Operations(TorchDispatchMode):
    """Notes the operations that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.add(operation.overloadpacket.__name__)
        return operation(*args, **(kwargs or {}))


def test_extractors_need_no_operation_that_deterministic_training_refuses(inception_weights: Path) -> None:
    images = torch.zeros(2, 3, 40, 30, dtype=torch.uint8)
    with _Operations() as seen:
        for resized in (*PROTOCOLS.values(), pillow):
            resized(images, (24, 50))
        for name, weights in (("wavelet", None), ("pixels", None), ("inception", inception_weights)):
            load(name, weights=weights)(images)
    assert {"mm", "convolution"} <= seen.names
    assert not REFUSED & seen.names
