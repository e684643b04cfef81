import functools
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.transforms import v2

from lightning_synthqual.images.identity import describe, own_fingerprint, sampled


class Photos(Dataset[Any]):
    """A data set of nothing, with attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def __len__(self) -> int:
        return 5

    def enlarge(self, image: Any) -> Any:
        return image


class Scale:
    """A transform as users write them."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.table = [lambda image: image, factor]

    def __call__(self, image: Any) -> Any:
        return image * self.factor


def test_256_items_stand_for_many_and_all_for_few() -> None:
    assert sampled(200) == list(range(200))
    chosen = sampled(10_000)
    assert len(set(chosen)) == 256
    assert chosen == sorted(chosen) == sampled(10_000)
    assert chosen[0] < 500 < 9500 < chosen[-1]


def test_class_length_and_transforms_are_described_without_addresses_or_methods() -> None:
    found = describe(Photos(root="data", transform=Scale(2.0), loader=json.loads))
    assert found[0].endswith("test_identity.Photos")
    assert found[1] == 5
    assert [name for name, _ in found[2]] == ["transform", "loader"]
    assert "0x" not in json.dumps(found)
    assert found == describe(Photos(root="elsewhere", transform=Scale(2.0), loader=json.loads))
    assert describe([1, 2]) == ["builtins.list", 2, []]
    assert describe(torch.zeros(3, 1))[1:] == [3, []]


@pytest.mark.parametrize(
    "transforms",
    [
        (Scale(1.0), Scale(2.0)),
        (functools.partial(round, ndigits=1), functools.partial(round, ndigits=2)),
        (v2.RandomHorizontalFlip(0.1), v2.RandomHorizontalFlip(0.2)),
        (v2.Compose([v2.RandomCrop(4)]), v2.Compose([v2.RandomCrop(5)])),
        (torch.nn.Sequential(v2.RandomCrop(4)), torch.nn.Sequential(v2.RandomCrop(5))),
        ([Scale(1.0)][0].__call__, Photos().enlarge),
    ],
)
def test_other_parameters_are_another_transform(transforms: tuple[Any, Any]) -> None:
    one, other = (describe(Photos(transform=each)) for each in transforms)
    assert one != other
    assert describe(Subset(Photos(transform=transforms[0]), [1])) != describe(
        Subset(Photos(transform=transforms[1]), [1])
    )


def test_wrapped_data_sets_are_described_too() -> None:
    parts = [Photos(transform=Scale(1.0)), TensorDataset(torch.zeros(7, 1))]
    assert describe(ConcatDataset(parts))[3:] == [describe(each) for each in parts]


def test_the_description_is_the_same_in_every_process() -> None:
    code = """
import json
from torchvision.transforms import v2
from lightning_synthqual.images.identity import describe
class Photos(list): pass
photos = Photos([1])
photos.transform = v2.Compose([v2.RandomCrop(4), v2.Lambda(lambda x: x), v2.ColorJitter(0.1)])
print(json.dumps(describe(photos)))
"""
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(runs) == 1
    assert "RandomCrop" in runs.pop()


@pytest.mark.parametrize(("value", "expected"), [("a1b2", "a1b2"), ("", None), (3, None)])
def test_a_fingerprint_of_its_own_is_a_string(value: Any, expected: str | None) -> None:
    assert own_fingerprint(Photos(_fingerprint=value)) == expected
