import pytest
import torch

from lightning_synthqual.images.duplicates import duplicates


def digests(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)[:, None].expand(-1, 32).contiguous()


def test_sets_without_a_common_image() -> None:
    assert duplicates(digests(1, 2, 3), digests(4, 5), str) is None


def test_common_images_are_counted_and_named() -> None:
    found = duplicates(digests(1, 2, 3), digests(9, 3, 8, 1), "image {}.png".format)
    assert found is not None
    assert found.startswith("2 of 4 images of `held_out` are also in `real` (image 1.png, image 3.png): copies of them")


def test_a_few_of_many_are_named() -> None:
    found = duplicates(digests(*range(8)), digests(*range(9)), str)
    assert "8 of 9 images of `held_out` are also in `real` (0, 1, 2, 3, 4 and 3 more)" in str(found)


@pytest.mark.parametrize("held_out", [(1, 2, 3), (2,), (3, 3)])
def test_nothing_but_common_images_is_an_error(held_out: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=rf"All {len(held_out)} images of `held_out` are also in `real`.*split by scene"
    ):
        duplicates(digests(1, 2, 3), digests(*held_out), str)


def test_images_that_differ_in_one_byte_are_no_duplicates() -> None:
    other = digests(1, 2)
    other[:, 31] += 1
    assert duplicates(digests(1, 2), other, str) is None
