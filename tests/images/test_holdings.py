import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from lightning_synthqual.images.holdings import search

_GLOBAL = torch.Generator()


class Dice(Dataset):
    def __init__(self) -> None:
        self.dice = np.random.default_rng(0)
        self.reads = 0

    def __len__(self) -> int:
        return 3


class Stream(IterableDataset):
    def __init__(self) -> None:
        self.epoch = 0
        self.dice = random.Random(0)

    def __iter__(self) -> Iterator[int]:
        return iter(())


class Augmentation:
    def __init__(self) -> None:
        self.dice = np.random.RandomState(0)

    def __call__(self, image: Any) -> Any:
        return image


def test_parents_come_before_their_children_wherever_a_child_is_given() -> None:
    inner = nn.Sequential(nn.Linear(1, 1))
    outer = nn.Sequential(nn.ReLU(), nn.Sequential(inner))
    found = search([outer, inner, inner[0]]).modules
    assert len(found) == 5
    assert found.index(outer) < found.index(outer[1]) < found.index(inner) < found.index(inner[0])


@pytest.mark.parametrize(
    "hold",
    [
        lambda generator: partial(len, generator),
        lambda generator: partial(len, a={"b": [generator]}),
        lambda generator: lambda: generator,
        lambda generator: lambda a=generator: a,
        lambda generator: lambda *, a=generator: a,
        lambda generator: partial(lambda: generator).func,
    ],
)
def test_generators_of_functions_are_found(hold: Any) -> None:
    generator = torch.Generator()
    assert search([hold(generator)]).generators == [generator]


def test_generators_that_a_function_names_are_found_and_no_other_globals() -> None:
    found = search([lambda: torch.rand(1, generator=_GLOBAL)])
    assert found.generators == [_GLOBAL]
    assert found.modules == []


@pytest.mark.parametrize(
    "wrap", [lambda data: data, lambda d: Subset(d, [0]), lambda d: ConcatDataset([d, d]), lambda d: DataLoader(d)]
)
def test_generators_of_data_sets_are_found(wrap: Any) -> None:
    data = Dice()
    found = search([wrap(data)])
    assert found.generators == [data.dice]
    assert data in found.others


def test_generators_of_streams_and_transforms_are_found() -> None:
    data = Stream()
    data.transform = [Augmentation()]
    assert search([data]).generators == [data.dice, data.transform[0].dice]


def test_modules_that_a_sampler_holds_are_found() -> None:
    average, hidden = nn.Linear(1, 1), nn.Linear(1, 1)
    average.hidden = [hidden]
    assert search([lambda module: average]).modules == [average, hidden]
    assert search([average.forward]).modules == [average, hidden]


def test_objects_of_other_classes_and_torchs_own_are_not_looked_into() -> None:
    class Other:
        def __init__(self) -> None:
            self.generator = torch.Generator()

    other = Other()
    module = nn.Linear(1, 1)
    module.other = other
    assert search([module]).generators == []
    assert search([other]).generators == [other.generator]  # given itself
    assert search([lambda: None, torch.compile]).generators == []


def test_a_variable_without_a_value_is_no_fault() -> None:
    def outer() -> Any:
        if not outer:
            missing = 1
        return lambda: missing

    assert search([outer()]).generators == []


def test_things_that_hold_each_other_are_searched_once() -> None:
    ring: list[Any] = [torch.Generator()]
    ring.append(ring)
    assert search([ring]).generators == ring[:1]
