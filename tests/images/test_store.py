import pytest
import torch

from lightning_synthqual.images.store import ImageStore


@pytest.mark.parametrize("memory", [2**20, 100])
def test_what_was_kept_comes_back_in_memory_and_from_the_disk(pictures, memory):
    with ImageStore(memory) as store:
        small, large = pictures(3, 4, 5), pictures(2, 9, 7)
        for position, image in zip((7, 2, 4), small, strict=True):
            store.add(position, image)
        store.add(1, large[0])
        assert torch.equal(store[2], small[1])
        store.add(0, large[1])  # after a look back, at the end again
        assert list(store) == [0, 1, 2, 4, 7]
        assert len(store) == 5
        for position, image in {7: small[0], 4: small[2], 1: large[0], 0: large[1]}.items():
            assert torch.equal(store[position], image)
            assert store[position].dtype == torch.uint8
        with pytest.raises(KeyError):
            store[5]


@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
def test_the_file_is_closed_on_leaving(pictures):
    with ImageStore(memory=10) as store:
        store.add(0, pictures(1, 9, 7)[0])
    with pytest.raises(ValueError, match="closed file"):
        store[0]
