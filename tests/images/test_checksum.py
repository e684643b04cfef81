import pytest
import torch
from torch import nn

from lightning_synthqual.images.checksum import parameters_of, weights_checksum


def weights() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(5, 3, generator=draw), torch.randn(7, generator=draw)]


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.int64,
        torch.uint8,
        torch.bool,
        torch.complex64,
    ],
)
def test_one_bit_makes_another_checksum(dtype):
    tensor = torch.tensor([[1, 0], [1, 1]]).to(dtype)
    other = tensor.clone()
    other.view(torch.uint8)[1, -1] ^= 1
    assert weights_checksum([tensor]) == weights_checksum([tensor.clone()])
    assert weights_checksum([tensor]) != weights_checksum([other])


def test_neither_strides_nor_gradients_nor_missing_values_matter():
    one, two = weights()
    expected = weights_checksum([one, two])
    assert weights_checksum([one.T.contiguous().T, nn.Parameter(two)]) == expected
    assert weights_checksum([two, one]) != expected
    assert weights_checksum([torch.tensor(float("nan")), torch.zeros(0)]) == weights_checksum(
        [torch.tensor(float("nan")), torch.zeros(0)]
    )


def test_the_first_process_counts_and_the_others_add_nothing():
    one, two = weights()
    parts: list[torch.Tensor] = []

    def collect(sums):
        parts.append(sums)
        return sums

    weights_checksum([one, None], rank=0, total=collect)
    weights_checksum([one, two], rank=1, total=collect)
    weights_checksum([None, two], rank=0, total=collect)
    assert parts[1].tolist() == [0, 0]
    assert weights_checksum([one, two], total=lambda _: parts[0] + parts[1] + parts[2]) == weights_checksum([one, two])


def test_parameters_of_modules_alone():
    module = nn.Sequential(nn.Linear(2, 3), nn.LazyLinear(4))
    assert parameters_of(module) == list(module[0].parameters())
    assert parameters_of(lambda z: z) == []
