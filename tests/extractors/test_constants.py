from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.extractors import Extractor, Identity
from lightning_synthqual.extractors import constants as module
from lightning_synthqual.extractors.constants import constant, release_constants
from lightning_synthqual.extractors.resize import pillow

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_kept", {})


def test_a_constant_is_computed_and_moved_once_for_each_device() -> None:
    calls = []

    def ramp(length: int) -> Tensor:
        calls.append(length)
        return torch.arange(length)

    first = constant(CPU, ramp, 3)
    assert first.tolist() == [0, 1, 2]
    assert constant(CPU, ramp, 3) is first
    assert constant(META, ramp, 3) is constant(META, ramp, 3)
    assert constant(META, ramp, 3).is_meta
    assert constant(CPU, ramp, 4).tolist() == [0, 1, 2, 3]
    assert calls == [3, 3, 4]


def test_no_more_are_kept_than_for_some_sizes() -> None:
    for length in range(200):
        constant(CPU, torch.zeros, length)
    assert len(module._kept) <= 64


def test_what_lies_on_an_accelerator_is_released_when_a_network_leaves_it() -> None:
    constant(META, torch.zeros, 3)
    kept = constant(CPU, torch.zeros, 3)
    extractor = Extractor(nn.Flatten(), Identity("flat", weights="none", preprocessing="none"))
    extractor.to("cpu")
    assert len(module._kept) == 2
    extractor.to("meta")
    assert list(module._kept.values()) == [kept]
    release_constants()
    assert list(module._kept.values()) == [kept]


def test_resizing_has_one_matrix_for_each_side(pictures: Callable[..., Tensor]) -> None:
    images = pictures(2, 12, 10)
    first = pillow(images, (5, 7))
    matrices = dict(module._kept)
    assert len(matrices) == 2
    assert torch.equal(pillow(images, (5, 7)), first)
    assert [*map(id, module._kept.values())] == [*map(id, matrices.values())]
