import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.extractors import Identity, PairNetwork

IDENTITY = Identity("mine", weights="none", preprocessing="nothing")


class Difference(nn.Module):
    def __init__(self, room: int = 100) -> None:
        super().__init__()
        self.room = room
        self.asked: list[int] = []

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        self.asked.append(len(first))
        if len(first) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (first.double() - second.double()).abs().mean(dim=(1, 2, 3))


def test_distances_are_float32_in_batches_that_fit(pictures) -> None:
    network = Difference(room=2)
    first, second = pictures(5, 3, 3), pictures(5, 3, 3, seed=1)
    found = PairNetwork(network, IDENTITY)(first, second)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (first.float() - second.float()).abs().mean(dim=(1, 2, 3)))
    assert network.asked == [5, 2, 2, 1]


def test_floats_beyond_the_range_are_measured_as_they_are() -> None:
    images = torch.full((1, 3, 2, 2), 260.0)
    assert PairNetwork(Difference(), IDENTITY)(images, images - 300).item() == pytest.approx(300)


BYTES, FLOATS = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.full((2, 3, 4, 4), 100.0)


@pytest.mark.parametrize(
    ("first", "second", "error", "message"),
    [
        (BYTES, FLOATS, TypeError, "two stacks of uint8 or two of float images, but got torch.uint8 and torch.float32"),
        (BYTES.int(), BYTES.int(), TypeError, "but got torch.int32"),
        (BYTES, BYTES[:1], ValueError, "of one shape"),
        (BYTES[:, :1], BYTES[:, :1], ValueError, r"\(N, 3, H, W\), but got \(2, 1, 4, 4\)"),
        (FLOATS, FLOATS * torch.nan, ValueError, "contain NaN or infinite"),
        (FLOATS / 100, FLOATS / 200, ValueError, r"\[0, 255\], but the largest value is 1\. Multiply"),
    ],
)
def test_other_images_are_refused(first: Tensor, second: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PairNetwork(Difference(), IDENTITY)(first, second)
