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
    assert (seen.low, seen.high, seen.negative) == (-3.0, 3.0, 2)


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


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.bool, torch.complex64])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"returned {dtype} images. Return uint8, or floats"):
        quantise(torch.zeros(1, 3, 2, 2, dtype=dtype), SYMMETRIC, "it")


ranges = st.builds(
    PixelRange,
    st.floats(-10, 10),
    st.floats(-10, 10),
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 1000),
)


@given(a=ranges, b=ranges, c=ranges)
def test_merging_is_associative_and_commutative_with_the_empty_range(a: PixelRange, b: PixelRange, c: PixelRange):
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + PixelRange() == a


def test_merged_parts_are_the_whole() -> None:
    images = 1.5 * torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    _, whole = quantise(images, SYMMETRIC, "it")
    parts = [quantise(part, SYMMETRIC, "it")[1] for part in images.split(3)]
    assert sum(parts, PixelRange()) == whole


def seen_in(values: torch.Tensor, declared: tuple[float, float]) -> PixelRange:
    return quantise(values.reshape(1, 1, 1, -1), declared, "it")[1]


@pytest.mark.parametrize(
    ("span", "declared", "mend"),
    [
        ((0.0, 255.0), (-1.0, 1.0), "image_range=(0.0, 255.0)"),
        ((0.0, 255.0), (0.0, 1.0), "image_range=(0.0, 255.0)"),
        ((-40.0, 12.0), (-1.0, 1.0), "image_range=(-40, 12)"),
        ((-1.0, 1.0), (0.0, 1.0), "image_range=(-1.0, 1.0)"),
        ((0.0, 1.0), (0.0, 255.0), "image_range=(0.0, 1.0)"),
        ((-1.0, 1.0), (0.0, 255.0), "image_range=(-1.0, 1.0)"),
    ],
)
def test_a_wrong_declaration_is_an_error_with_the_mend(
    span: tuple[float, float], declared: tuple[float, float], mend: str
) -> None:
    seen = seen_in(torch.linspace(*span, 100), declared)
    with pytest.raises(ValueError, match="was declared, but the generator returned values from") as caught:
        seen.check(declared, "the generator", "image_range")
    assert f"`{mend}`" in str(caught.value)
    assert f"`image_range={declared}`" in str(caught.value)


def test_only_the_upper_half_is_a_warning() -> None:
    warning = seen_in(torch.linspace(0, 1, 100), SYMMETRIC).check(SYMMETRIC, "`real`", "real_range")
    assert warning is not None
    assert "never below zero" in warning
    assert "`real_range=(0.0, 1.0)`" in warning


def test_overshoot_of_an_unbounded_generator_is_no_error() -> None:
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    seen = seen_in(0.6 * values, SYMMETRIC)
    assert 0.05 < seen.clamped_share < 0.2
    assert seen.check(SYMMETRIC, "the generator", "image_range") is None


def test_much_clamping_is_a_warning() -> None:
    warning = seen_in(torch.linspace(-3, 3, 101), SYMMETRIC).check(SYMMETRIC, "the generator", "image_range")
    assert warning is not None
    assert "were clamped" in warning


@pytest.mark.parametrize(
    ("span", "declared"),
    [
        ((-1.0, 1.0), SYMMETRIC),
        ((0.0, 1.0), (0.0, 1.0)),
        ((-0.1, 1.1), (0.0, 1.0)),
        ((0.0, 255.0), (0.0, 255.0)),
        ((0.3, 0.3), SYMMETRIC),
        ((0.0, 0.0), (0.0, 255.0)),
    ],
)
def test_what_fits_says_nothing(span: tuple[float, float], declared: tuple[float, float]) -> None:
    assert seen_in(torch.linspace(*span, 100), declared).check(declared, "it", "image_range") is None


def test_uint8_fits_any_declaration() -> None:
    assert PixelRange().check((0.0, 1.0), "it", "image_range") is None
