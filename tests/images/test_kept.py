import pytest
import torch

from lightning_synthqual.images.kept import KeptImages


@pytest.mark.parametrize("memory", [2**20, 100])
def test_what_was_kept_comes_back_in_memory_and_from_the_disk(pictures, memory):
    kept = KeptImages(memory)
    small, large = pictures(3, 4, 5), pictures(2, 9, 7)
    for position, image in zip((7, 2, 4), small, strict=True):
        kept.add(position, image)
    kept.add(1, large[0])
    assert torch.equal(kept[2], small[1])
    kept.add(0, large[1])  # after a look back, at the end again
    assert list(kept) == [0, 1, 2, 4, 7]
    assert len(kept) == 5
    for position, image in {7: small[0], 4: small[2], 1: large[0], 0: large[1]}.items():
        assert torch.equal(kept[position], image)
        assert kept[position].dtype == torch.uint8
    with pytest.raises(KeyError):
        kept[5]
