"""Pictures, and a comparison of states, that many tests share."""

import random
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
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


@pytest.fixture
def read_wandb() -> Callable[[Path], list[Any]]:
    """Read the record file of an offline W&B run: LevelDB's log framing behind a header of 7 bytes."""

    def records_of(path: Path) -> list[Any]:
        from wandb.proto import wandb_internal_pb2

        data, position, pending, records = path.read_bytes(), 7, b"", []
        while position + 7 <= len(data):
            left = 32768 - position % 32768
            if left < 7:
                position += left
                continue
            length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
            pending += data[position + 7 : position + 7 + length]
            position += 7 + length
            if kind in (1, 4):  # a whole record, or its last part
                records.append(wandb_internal_pb2.Record.FromString(pending))
                pending = b""
        return records

    def read(folder: Path) -> list[Any]:
        """Wait for the record of the run's end: the service writes on after `wandb.finish` has returned."""
        [path] = folder.rglob("*.wandb")
        for _ in range(300):
            records = records_of(path)
            if any(record.HasField("exit") for record in records):
                break
            time.sleep(0.1)
        return records

    return read
