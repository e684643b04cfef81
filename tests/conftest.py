"""Pictures, and a comparison of states, that many tests share."""

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

collect_ignore = ["benchmarks"]  # scripts, which need no collecting


def _pictures(count: int, *size: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), generator=draw).to(torch.uint8)


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Tensor]:
    """``pictures(count, height, width, seed=)``: random uint8 (count, 3, height, width)."""
    return _pictures


_INTERNALS = frozenset(vars(nn.Module()))


def _contents(value: Any) -> Any:
    if isinstance(value, nn.Module):
        entries = (value._parameters, value._buffers, value._modules)
        own = {name: each for name, each in vars(value).items() if name not in _INTERNALS}
        return type(value).__name__, value.training, _contents(own), [_contents(dict(each)) for each in entries]
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.detach().contiguous().numpy().tobytes(), value.requires_grad
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, torch.Generator):
        return _contents(value.get_state())
    if isinstance(value, np.random.Generator | np.random.RandomState):
        return str(value.bit_generator.state if isinstance(value, np.random.Generator) else value.get_state())
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, dict):
        return {name: _contents(each) for name, each in value.items()}
    if isinstance(value, list | deque | tuple):
        return [_contents(each) for each in value]
    return value if isinstance(value, int | float | str | set | None) else type(value)


@pytest.fixture(scope="session")
def contents() -> Callable[[Any], Any]:
    """``contents(value)``: equal for states that are equal to the bit: weights, modes, attributes, generators."""
    return _contents


@pytest.fixture
def clouds() -> tuple[TensorDataset, ...]:
    """Training, held-out and generated images: noise of three strengths."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int, low: int) -> TensorDataset:
        return TensorDataset(torch.randint(low, 256 - low, (count, 3, 16, 16), dtype=torch.uint8, generator=generator))

    return draw(60, 20), draw(50, 24), draw(40, 40)
