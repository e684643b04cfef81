"""What is stated beside the data is checked at once."""

import pickle
from typing import Any

import numpy as np
import pytest

import lightning_synthqual
from lightning_synthqual import Images


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"range": (1, 0)}, ValueError, "`range` must be finite and have low < high"),
        ({"range": (0, float("nan"))}, ValueError, "`range` must be finite"),
        ({"range": (0, float("inf"))}, ValueError, "`range` must be finite"),
        ({"range": 255}, TypeError, r"`range` must be two numbers \(low, high\), but got 255"),
        ({"range": (0, 1, 2)}, TypeError, "`range` must be two numbers"),
        ({"range": ("a", "b")}, TypeError, "`range` must be two numbers"),
        ({"key": 1.5}, TypeError, "`key` must be a string, an integer or None"),
        ({"key": True}, TypeError, "`key` must be"),
        ({"mean": 0.5}, ValueError, "`mean` and `std` go together"),
        ({"std": 0.5}, ValueError, "`mean` and `std` go together"),
        ({"mean": 0.5, "std": 0}, ValueError, "`std` must be positive"),
        ({"mean": [0.5, 0.5], "std": 1}, ValueError, "`mean` must be 1 or 3 finite numbers"),
        ({"mean": "grey", "std": 1}, TypeError, "`mean` must be a number or one number per channel"),
        ({"mean": None, "std": [1, 1, float("nan")]}, ValueError, "go together"),
        ({"mean": 0, "std": [1, 1, float("nan")]}, ValueError, "`std` must be 1 or 3 finite numbers"),
    ],
)
def test_impossible_statements_are_errors(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Images("folder", **arguments)


def test_images_in_images_are_an_error() -> None:
    with pytest.raises(TypeError, match="got another `Images`"):
        Images(Images("folder"))


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_plain_values_of_any_kind_are_described_as_lists(kind: Any) -> None:
    images = Images("folder", range=kind([0, 255]), key=1, mean=kind([0.1, 0.2, 0.3]), std=2)
    assert images.describe() == {"range": [0.0, 255.0], "key": 1, "mean": [0.1, 0.2, 0.3], "std": [2.0]}
    assert pickle.loads(pickle.dumps(images)).describe() == images.describe()


def test_a_missing_source_is_filled_in() -> None:
    stated = Images(None, key=1)
    assert (stated.or_from("train").source, stated.or_from("train").key) == ("train", 1)
    assert Images("mine").or_from("train").source == "mine"
    assert Images.of(stated) is stated
    assert Images.of("folder").describe() == {}
    assert lightning_synthqual.Images is Images
