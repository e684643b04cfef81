"""Pictures that the image tests share."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor


def _pictures(count: int, *size: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), generator=draw).to(torch.uint8)


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Tensor]:
    """``pictures(count, height, width, seed=)``: random uint8 (count, 3, height, width)."""
    return _pictures


@pytest.fixture
def array() -> NDArray[np.uint8]:
    """One random picture, uint8 (9, 7, 3)."""
    return np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
