"""Pictures and random but usable weights that the extractor tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.extractors.inception import InceptionNetwork


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[..., Tensor]) -> Path:
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
            network.train()(pictures(4, 75, 75))
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.trunk.state_dict(), path)
    return path
