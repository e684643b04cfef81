"""What is said of the values of real and of generated images."""

import json
from dataclasses import asdict
from math import isnan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_synthqual.images.pixels import quantise
from lightning_synthqual.images.ranges import (
    Declaration,
    PixelRange,
    _counted_here,
    _counted_there,
    generated_range,
)

SIGNED, UNIT, BYTE = (-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)


def seen_in(values: Tensor, declaration: Declaration) -> PixelRange:
    return quantise(values.reshape(1, 1, 1, -1), declaration, "it")[1]


def check(values: Tensor, declared: tuple[float, float] | None = None, assumed: tuple[float, float] = SIGNED):
    declaration = Declaration(declared or assumed, declared, "real_range", assumed=declared is None)
    return declaration.check(seen_in(values, declaration), "`real`")


def caveat(values: Tensor, image_range: tuple[float, float]) -> str | None:
    declaration = generated_range(image_range)
    return declaration.caveat(seen_in(values, declaration), "the generator")


def span(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, 10_001)


def mostly(value: float, *others: float) -> Tensor:
    """10,000 values, all equal but for a few."""
    values = torch.full((10_000,), value)
    values[: len(others)] = torch.tensor(others)
    return values


counts = st.integers(0, 1000)
ranges = st.builds(PixelRange, st.floats(-10, 10), st.floats(-10, 10), *[counts] * 7)


@given(a=ranges, b=ranges, c=ranges)
def test_merging_is_associative_and_commutative_with_the_empty_range(a: PixelRange, b: PixelRange, c: PixelRange):
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + PixelRange() == a


def test_merged_parts_are_the_whole_also_by_way_of_json() -> None:
    images = 1.5 * torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    _, whole = quantise(images, SIGNED, "it")
    parts = [quantise(part, SIGNED, "it")[1] for part in images.split(3)]
    assert sum((PixelRange(**json.loads(json.dumps(asdict(part)))) for part in parts), PixelRange()) == whole


def test_values_are_counted_against_every_range() -> None:
    _, seen = quantise(torch.tensor([-300.0, -1.1, -0.2, 0.5, 1.0, 1.05, 1.3, 254.0]).reshape(1, 1, 1, 8), UNIT, "it")
    assert seen == PixelRange(
        -300, 254, 8, clamped=6, beyond=5, outside_unit=5, outside_signed=3, outside_byte=1, type_limit=0
    )


@pytest.mark.parametrize(
    ("values", "declared", "right"),
    [
        (span(0, 1), SIGNED, UNIT),
        (span(0.3, 0.9), SIGNED, UNIT),
        (span(0, 255), SIGNED, BYTE),
        (span(0, 255), UNIT, BYTE),
        (span(-1, 1), UNIT, SIGNED),
        (span(-1, -0.5), UNIT, SIGNED),
        (span(0, 1), BYTE, UNIT),
        (span(-1, 1), BYTE, SIGNED),
        (span(0, 1), (0.0, 4095.0), UNIT),
        (span(-0.08, 1.08), SIGNED, UNIT),  # bicubic resizing overshoots
        (mostly(0.0, *[200.0] * 500), UNIT, BYTE),  # few pixels are not black
        (span(0, 3), SIGNED, (0, 3)),
        (mostly(200.0), SIGNED, BYTE),  # every image the same
    ],
)
def test_real_images_that_contradict_their_range_are_an_error_with_the_right_one(values, declared, right) -> None:
    with pytest.raises(ValueError, match="`real_range=") as caught:
        check(values, declared)
    assert f"Pass `real_range={right}`." in str(caught.value)
    assert f"`real_range={declared}` was declared for `real`, but the values go from" in str(caught.value)


def test_black_writing_on_white_is_a_warning() -> None:
    warning = check(mostly(1.0, *[-1.0] * 30, *[0.3] * 30), SIGNED)
    assert warning is not None
    assert "hardly any is below zero. If they span (0.0, 1.0), pass `real_range=(0.0, 1.0)`." in warning


def test_both_arguments_are_named_where_nothing_was_declared() -> None:
    with pytest.raises(ValueError, match="No range was declared") as caught:
        check(span(0, 1))
    both = "`real_range=(0.0, 1.0)`, and `image_range=(0.0, 1.0)` if generated images span the same"
    assert both in str(caught.value)


def test_real_range_alone_is_named_where_image_range_was_declared() -> None:
    with pytest.raises(ValueError, match=r"Pass `real_range=\(-1\.0, 1\.0\)`\.") as caught:
        check(span(-1, 1), assumed=UNIT)
    assert "image_range=(" not in str(caught.value)


def test_normalised_images_are_recognised() -> None:
    message = r"Pass `real_range=\(-2\.12, 2\.64\)` \(or, .*`Images\(data, mean=\.\.\., std="
    with pytest.raises(ValueError, match=message):
        check(span(-2.12, 2.64))


@pytest.mark.parametrize(
    ("values", "declared"),
    [
        (span(-1, 1), SIGNED),
        (span(-1, -0.5), SIGNED),  # dark
        (span(0, 0.1), UNIT),  # dark
        (span(0, 9), BYTE),  # dark
        (span(0.5, 1), UNIT),  # bright
        (span(-1.05, 1.05), SIGNED),
        (mostly(0.3), SIGNED),  # every image the same
        (mostly(0.0), BYTE),
        (mostly(0.5, 17.0), UNIT),  # an outlier
        (mostly(-0.5, 300.0), SIGNED),
        (span(-2.1, 2.6), (-2.2, 2.7)),
        (span(0, 4095), (0.0, 4095.0)),
    ],
)
def test_real_images_that_fit_say_nothing(values: Tensor, declared: tuple[float, float]) -> None:
    assert check(values, declared) is None


def test_an_outlier_does_not_hide_a_contradiction() -> None:
    values = span(0, 1)
    values[0] = -0.9
    with pytest.raises(ValueError, match=r"`real_range=\(0\.0, 1\.0\)`"):
        check(values, SIGNED)


def test_some_values_beyond_the_range_of_real_images_are_a_warning() -> None:
    warning = check(mostly(0.0, *[200.0] * 50), UNIT)
    assert warning is not None
    assert "go from 0 to 200; 0.5% of them lie beyond it and are clamped." in warning
    warning = check(1.05 * torch.sign(span(-1, 1)), SIGNED)
    assert warning is not None
    assert "100.0% of them lie beyond it" in warning


@pytest.mark.parametrize(
    ("values", "declared", "remedy"),
    [
        (span(0, 1), SIGNED, "the values never go below zero. If it is wrong, pass `image_range=(0.0, 1.0)`."),
        (span(-1, 1), UNIT, "pass `image_range=(-1.0, 1.0)`."),
        (span(0, 255), SIGNED, "pass `image_range=(0.0, 255.0)`."),
        (span(-0.3, 0.2), BYTE, "the values fill less than a hundredth of it"),
        (span(-30, 30), SIGNED, "more than 10% of the values lie beyond it and are clamped"),
    ],
)
def test_generated_images_are_believed_with_a_warning(values, declared, remedy: str) -> None:
    warning = caveat(values, declared)
    assert warning is not None
    assert remedy in warning
    assert f"`image_range={declared}` was declared for the generator" in warning


def test_the_warning_does_not_change_from_one_evaluation_to_the_next() -> None:
    assert caveat(span(-30, 30), SIGNED) == caveat(span(-29, 43), SIGNED)
    assert caveat(span(0.1, 0.8), SIGNED) == caveat(span(0.2, 1), SIGNED)


@pytest.mark.parametrize("declared", [SIGNED, UNIT, BYTE])
def test_one_outlier_of_a_generator_says_nothing(declared: tuple[float, float]) -> None:
    values = torch.linspace(*declared, 7680)
    values[77] = -1e6
    assert caveat(values, declared) is None


def test_overshoot_of_an_unbounded_generator_says_nothing() -> None:
    values = 0.6 * torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    assert 0.05 < seen_in(values, generated_range(SIGNED)).clamped_share < 0.2
    assert caveat(values, SIGNED) is None


def test_uint8_fits_any_declaration() -> None:
    assert Declaration(BYTE, BYTE, "real_range").check(PixelRange(), "it") is None
    assert generated_range(BYTE).caveat(PixelRange(), "it") is None


@pytest.mark.parametrize(
    ("dtype", "high", "likely"),
    [
        (torch.uint16, 1000, "(0, 1023)"),
        (torch.uint16, 4095, "(0, 4095)"),
        (torch.int16, 4095, "(0, 4095)"),
        (torch.int32, 65535, "(0, 65535)"),
        (torch.int64, 255, "(0, 255)"),
        (torch.uint16, 0, "(0, 1)"),
    ],
)
@pytest.mark.parametrize("generated", [False, True])
def test_integers_of_another_depth_are_an_error(dtype: torch.dtype, high: int, likely: str, generated: bool) -> None:
    levels = torch.tensor([0, high]).to(dtype)
    argument = "image_range" if generated else "real_range"
    with pytest.raises(ValueError, match=rf"integers from 0 to {high}, of a type that goes up to \d+") as caught:
        caveat(levels, SIGNED) if generated else check(levels)
    assert f"Pass `{argument}={likely}`" in str(caught.value)


def test_negative_integers_need_a_declaration() -> None:
    levels = torch.tensor([-1000, 30_000], dtype=torch.int16)
    with pytest.raises(ValueError, match=r"Pass `real_range=\(-1000, 30000\)`"):
        check(levels)
    assert check(levels, (-1000.0, 30_000.0)) is None


@pytest.mark.parametrize("dtype", [torch.uint16, torch.int16, torch.int32])
def test_integers_that_use_an_eighth_of_their_type_are_in_its_range(dtype: torch.dtype) -> None:
    limit = torch.iinfo(dtype).max
    assert check(torch.tensor([0, limit // 8 + 1]).to(dtype)) is None
    with pytest.raises(ValueError, match="nothing says what they span"):
        check(torch.tensor([0, limit // 8]).to(dtype))


def test_declared_integers_are_compared_like_floats() -> None:
    levels = torch.arange(4096).to(torch.uint16)
    assert check(levels, (0.0, 4095.0)) is None
    with pytest.raises(ValueError, match=r"Pass `real_range=\(0, 4095\)`"):
        check(levels, (0.0, 1023.0))
    with pytest.raises(ValueError, match=r"`image_range=\(0\.0, 1\.0\)` was declared"):
        caveat(levels, UNIT)  # integers are no unsquashed generator's


def test_images_of_little_contrast_about_the_middle_are_no_fault():
    assert check(span(-0.05, 0.05), SIGNED) is None
    assert check(span(-0.3, 0.2), SIGNED) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), -float("inf"), 1e30, 0.1])
def test_a_device_counts_as_the_cpu_does(dtype: torch.dtype, odd: float | None) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    limits = [SIGNED, UNIT, BYTE, (-0.5, 0.25), (-9.0, 9.0)]
    if odd is not None:
        values[3] = odd
    here, there = _counted_here(values, limits), _counted_there(values, limits)
    if odd != odd:
        assert all(isnan(each) for each in (*here[:2], *there[:2]))
        return
    assert here == there
    assert there[:2] == (values.min().item(), values.max().item())
    assert there[2] == [int(((values < low) | (values > high)).sum()) for low, high in limits]
