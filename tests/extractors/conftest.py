"""Pictures and random but usable weights that the extractor tests share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import huggingface_hub
import pytest
import torch
import torchvision
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn

from lightning_synthqual.extractors import weights
from lightning_synthqual.extractors.inception import InceptionNetwork
from lightning_synthqual.extractors.weights import DIRECTORY_VARIABLE


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[..., Tensor]) -> Path:
    """A state dict of random weights under which the features of unlike pictures differ, as default ones' do not.

    BatchNorm is calibrated on pictures of little contrast: on pictures like the tests' own, a random network amplifies
    float32 rounding a hundredfold, as a trained one does not.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = InceptionNetwork()
        for part in network.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight)
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        with torch.no_grad():
            network.train()(pictures(4, 75, 75) // 2 + 64)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.trunk.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random classifiers in torchvision's file format, under their published names."""
    folder = tmp_path_factory.mktemp("trunks")
    files = {"alexnet": "alexnet-owt-7be5be79.pth", "vgg16": "vgg16-397923af.pth"}
    for name, file in files.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.save(getattr(torchvision.models, name)().state_dict(), folder / file)
    return {name: folder / file for name, file in files.items()}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing can be downloaded, and nothing has been; the path is where downloads would go."""

    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("Name or service not known")

    def refuse_hub(*_: Any, **__: Any) -> None:
        raise LocalEntryNotFoundError("An error happened while trying to locate the file on the Hub")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(weights, "check_reachable", lambda _: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse_hub)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    return tmp_path / "hub"


@pytest.fixture
def relative() -> Callable[[Tensor, Tensor], float]:
    """``relative(found, expected)``: length of the difference over the expected length."""
    return lambda found, expected: float((found - expected).norm() / expected.norm())
