"""What samplers may return."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_synthqual.images.returned import as_tensor

TENSOR = torch.randint(0, 256, (5, 3, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ARRAY = TENSOR.permute(0, 2, 3, 1).numpy()
PICTURES = [Image.fromarray(each) for each in ARRAY]


@pytest.mark.parametrize(
    "found",
    [
        TENSOR,
        TENSOR.permute(0, 2, 3, 1),
        ARRAY,
        TENSOR.numpy(),
        PICTURES,
        tuple(PICTURES),
        list(ARRAY),
        list(TENSOR),
        {"images": ARRAY},
        SimpleNamespace(images=PICTURES),
    ],
)
def test_every_form_gives_the_same_images(found):
    assert torch.equal(as_tensor(found, "the sampler"), TENSOR)


def test_values_stay_as_they_are_and_grey_arrays_get_a_channel():
    floats = np.random.default_rng(0).random((5, 6, 7, 1), dtype=np.float32)
    for found in (floats, floats[..., 0]):
        assert torch.equal(as_tensor(found, "x"), torch.from_numpy(floats).permute(0, 3, 1, 2))


def test_a_tensor_that_fits_both_ways_has_its_channels_first():
    assert torch.equal(as_tensor(TENSOR[..., :3], "x"), TENSOR[..., :3])


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (np.zeros((2, 3, 6, 3)), ValueError, "second or its last place"),
        ({"pictures": TENSOR}, TypeError, "must return a tensor .* but returned dict"),
        (None, TypeError, "but returned NoneType"),
        ([], ValueError, "none at all"),
        ([TENSOR[0], TENSOR[0, :, 1:]], ValueError, r"one size.*\(3, 5, 7\), \(3, 6, 7\)"),
        (["a"], TypeError, r"\(image 0\) must be a PIL image.* but is str"),
        ([PICTURES[0].convert("CMYK")], ValueError, "CMYK"),
        (np.array(["a"]), TypeError, "array that cannot be used"),
    ],
)
def test_what_is_no_images_is_an_error(found, error, message):
    with pytest.raises(error, match=message):
        as_tensor(found, "the sampler")
