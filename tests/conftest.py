"""Pictures that many tests share."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

collect_ignore = ["benchmarks"]  # scripts, which need no collecting


def _pictures(count: int, *size: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), generator=draw).to(torch.uint8)


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Tensor]:
    """``pictures(count, height, width, seed=)``: random uint8 (count, 3, height, width)."""
    return _pictures
