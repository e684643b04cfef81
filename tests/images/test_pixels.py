from math import inf, nan

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lightning_synthqual.images.pixels import PixelRange, quantise

LEVELS = torch.arange(256, dtype=torch.float64).reshape(1, 1, 16, 16)
SYMMETRIC = (-1.0, 1.0)


def spread(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


@given(low=st.floats(-1e4, 1e4, width=32), width=st.floats(2**-10, 1e4, width=32))
@example(low=0.0, width=1.0)
@example(low=-1.0, width=2.0)
@example(low=0.0, width=255.0)
def test_every_level_survives_any_range(low: float, width: float) -> None:
    assume(width > 1e-3 * abs(low))  # else float32 itself cannot tell 256 levels apart
    floats = (LEVELS / 255 * width + low).float()
    images, seen = quantise(floats, (low, low + width), "it")
    assert torch.equal(images[:, :1], LEVELS.to(torch.uint8))
    assert seen.clamped == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_read_as_their_values(dtype: torch.dtype) -> None:
    floats = (LEVELS / 255).to(dtype)
    images, seen = quantise(floats, (0.0, 1.0), "it")
    assert torch.equal(images[:, :1], (floats.double() * 255).round().to(torch.uint8))
    assert seen.count == 256
    if dtype != torch.bfloat16:
        assert torch.equal(images[:, :1], LEVELS.to(torch.uint8))


def test_overshoot_is_clamped_and_never_wraps() -> None:
    images, seen = quantise(spread([1.02, -0.02, 257 / 255, 3.0, -3.0, 0.5]), (0.0, 1.0), "it")
    assert images[0, 0, 0].tolist() == [255, 0, 255, 255, 0, 128]
    assert (seen.clamped, seen.count) == (5, 6)
    assert seen.clamped_share == pytest.approx(5 / 6)
    assert (seen.low, seen.high) == (-3.0, 3.0)


def test_rounding_is_half_to_even() -> None:
    images, _ = quantise(spread([0.5, 1.5, 2.5, 3.5, 254.5, 0.4999, 1.5001]), (0.0, 255.0), "it")
    assert images[0, 0, 0].tolist() == [0, 2, 2, 4, 254, 0, 2]


def test_less_than_a_level_beyond_the_range_is_no_overshoot() -> None:
    _, seen = quantise(spread([1.001, -1.001, 1.0021]), SYMMETRIC, "it")
    assert seen.clamped == 1


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_nan_and_infinity_name_the_image(value: float) -> None:
    images = torch.zeros(5, 3, 2, 2)
    images[3, 1, 0, 1] = value
    with pytest.raises(ValueError, match=r"^the sampler returned NaN or infinite values, first in image 3 of 5\."):
        quantise(images, SYMMETRIC, "the sampler")


def test_uint8_passes_unchanged_and_unseen() -> None:
    given_images = torch.randint(0, 256, (2, 3, 4, 5)).to(torch.uint8)
    images, seen = quantise(given_images, SYMMETRIC, "it")
    assert torch.equal(images, given_images)
    assert seen == PixelRange()
    assert seen.clamped_share == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_one_channel_becomes_three_equal_ones(dtype: torch.dtype) -> None:
    grey = torch.randint(0, 256, (2, 1, 4, 5)).to(dtype)
    images, _ = quantise(grey, (0.0, 255.0), "it")
    assert images.shape == (2, 3, 4, 5)
    assert all(torch.equal(images[:, [channel]], grey.to(torch.uint8)) for channel in range(3))


def test_the_input_is_left_alone() -> None:
    floats = torch.rand(1, 3, 4, 4) * 3
    before = floats.clone()
    quantise(floats, (0.0, 1.0), "it")
    assert torch.equal(floats, before)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 4, 8, 8), "4 channels, where 1 or 3 are expected. Drop or merge channels"),
        ((2, 2, 8, 8), "2 channels"),
        ((2, 8, 8, 3), r"8 channels, where 1 or 3 are expected. Permute them to \(N, C, H, W\)"),
        ((2, 8, 8, 1), "Permute them"),
        ((3, 8, 8), r"must return images of shape \(N, C, H, W\), but returned \(3, 8, 8\)"),
        ((0, 3, 8, 8), r"but returned \(0, 3, 8, 8\)"),
        ((2, 3, 0, 8), r"but returned \(2, 3, 0, 8\)"),
    ],
)
def test_wrong_shapes_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantise(torch.zeros(shape), SYMMETRIC, "it")


@pytest.mark.parametrize("images", [None, [torch.zeros(3, 2, 2)], LEVELS.numpy()])
def test_what_is_no_tensor_is_refused(images: object) -> None:
    with pytest.raises(TypeError, match=f"must return a tensor .* but returned {type(images).__name__}"):
        quantise(images, SYMMETRIC, "it")


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"returned {dtype} images. Return uint8, or numbers"):
        quantise(torch.zeros(1, 3, 2, 2, dtype=dtype), SYMMETRIC, "it")


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int16, torch.int32, torch.uint32])
def test_integers_span_their_type_or_what_was_declared_of_them(dtype: torch.dtype) -> None:
    limit = torch.iinfo(dtype).max
    levels = torch.tensor([0, limit // 2, limit], dtype=torch.int64).to(dtype).reshape(1, 1, 1, 3)
    images, seen = quantise(levels, SYMMETRIC, "it")
    assert images[0, 0, 0].tolist() == [0, 127, 255]
    assert (seen.type_limit, seen.clamped) == (limit, 0)
    levels = torch.tensor([0, 4, 511, 1023, 2000]).to(dtype).reshape(1, 1, 1, 5)
    images, seen = quantise(levels, (0.0, 1023.0), "it")
    assert images[0, 0, 0].tolist() == [0, 1, 127, 255, 255]
    assert seen.clamped == 1
