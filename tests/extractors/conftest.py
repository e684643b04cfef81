"""Pictures and random but usable weights that the extractor tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.extractors.inception import InceptionNetwork


def _pictures(count: int, *size: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, *size), generator=draw).to(torch.uint8)


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Tensor]:
    """``pictures(count, height, width, seed=)``: random uint8 (count, 3, height, width)."""
    return _pictures


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of random weights under which the features of unlike pictures differ, as default ones' do not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = InceptionNetwork()
        for part in network.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight)
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        with torch.no_grad():
            network.train()(_pictures(4, 75, 75))
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.trunk.state_dict(), path)
    return path
