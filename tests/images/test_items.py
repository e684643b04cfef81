"""From an item of a dataset to its image."""

from typing import Any

import numpy as np
import pytest
import torch

from lightning_synthqual.images.items import KEYS, denormalised, image_of


def test_the_image_of_an_item_is_not_copied_needlessly(pictures: Any) -> None:
    image = pictures(1, 3, 3)[0]
    assert image_of((image, 1), "it") is image


@pytest.mark.parametrize("first", range(len(KEYS)))
def test_of_a_dict_the_usual_keys_are_tried_in_order(first: int) -> None:
    item = {"label": 3} | {key: torch.full((3, 2, 2), place) for place, key in reversed([*enumerate(KEYS)][first:])}
    assert int(image_of(item, "it")[0, 0, 0]) == first


def test_a_dict_without_an_image_is_an_error_that_names_its_keys() -> None:
    with pytest.raises(TypeError, match=r"^it is a dict with none of image, .* keys are 'scan', 7\. Pass `Images\("):
        image_of({"scan": torch.zeros(3, 2, 2), 7: 1}, "it")
    with pytest.raises(TypeError, match=r"^it is a dict with no 'photo'; its keys are 'image'\."):
        image_of({"image": torch.zeros(3, 2, 2)}, "it", "photo")


@pytest.mark.parametrize(
    ("item", "key", "message"),
    [
        ((1, 2), 2, "it is a tuple of 2 entries, which has no 2"),
        ((1, 2), "image", "it is a tuple of 2 entries, which has no 'image'"),
        (torch.zeros(3, 2, 2), 0, "it is Tensor, which has no entries, but `key=0` was given"),
        ({"jpg": b"\xff\xd8"}, None, "the image is bytes.*`Images"),
        (np.array([["a"]], dtype=object), None, "it is an image that cannot be used"),
    ],
)
def test_what_is_not_where_it_should_be_is_an_error(item: Any, key: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        image_of(item, "it", key)


def test_read_only_arrays_are_read_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    array = np.zeros((2, 2), np.uint8)
    array.flags.writeable = False
    image_of(array, "it")
    assert not recwarn.list


def test_a_normalisation_of_other_channels_or_of_integers_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"of 3 channels .* but it is torch.float32 of shape \(1, 2, 2\)"):
        denormalised(torch.zeros(1, 2, 2), [0.5, 0.5, 0.5], [0.5], "it")
    with pytest.raises(ValueError, match=r"but it is torch.uint8"):
        denormalised(torch.zeros(1, 2, 2, dtype=torch.uint8), [0.5], [0.5], "it")
