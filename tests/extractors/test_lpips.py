import warnings
from collections.abc import Callable
from pathlib import Path

import lpips
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS as TorchmetricsLpips

from lightning_synthqual.extractors import load_pair

Pictures = Callable[..., Tensor]
TRUNKS = {"lpips_alex": "alexnet", "lpips_vgg": "vgg16"}


def theirs(name: str, package: type[nn.Module], trunk: Path) -> nn.Module:
    """A package's own network on the same trunk."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet = {"verbose": False} if package is lpips.LPIPS else {}
        network = package(net=name.removeprefix("lpips_"), pnet_rand=True, **quiet)
    classifier = getattr(torchvision.models, TRUNKS[name])()
    classifier.load_state_dict(torch.load(trunk, weights_only=True))
    for piece in network.net.children():
        for place, layer in piece.named_children():
            layer.load_state_dict(classifier.features[int(place)].state_dict())
    return network.eval()


@pytest.mark.parametrize("package", [lpips.LPIPS, TorchmetricsLpips])
@pytest.mark.parametrize("name", TRUNKS)
def test_distances_are_the_packages_own(
    name: str, package: type[nn.Module], trunks: dict[str, Path], pictures: Pictures
) -> None:
    first, second = pictures(3, 40, 50), pictures(3, 40, 50, seed=1)
    pair = load_pair(name, weights=str(trunks[TRUNKS[name]]))
    with torch.no_grad():
        expected = theirs(name, package, trunks[TRUNKS[name]])(first / 127.5 - 1, second / 127.5 - 1).flatten()
    found = pair(first, second)
    assert found.shape == (3,)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    assert (found > 0.01).all()
    assert torch.equal(pair(first.float(), second.float()), found)


def test_a_picture_is_at_no_distance_from_itself(trunks: dict[str, Path], pictures: Pictures) -> None:
    images = pictures(2, 32, 32)
    assert torch.equal(load_pair("lpips_alex", weights=str(trunks["alexnet"]))(images, images), torch.zeros(2))


def test_trunks_are_found_by_their_published_names(trunks: dict[str, Path], pictures: Pictures) -> None:
    found = load_pair("lpips_alex", weights_dir=str(trunks["alexnet"].parent))
    assert found.identity.origin == "custom"
    given = load_pair("lpips_alex", weights=str(trunks["alexnet"]))
    assert found.identity == given.identity
    images = pictures(2, 32, 32), pictures(2, 32, 32, seed=1)
    assert torch.equal(found(*images), given(*images))


def test_a_whole_state_dict_brings_its_own_heads(trunks: dict[str, Path], pictures: Pictures, tmp_path: Path) -> None:
    network = theirs("lpips_alex", lpips.LPIPS, trunks["alexnet"])
    for head in network.lins:
        for value in head.parameters():
            value.data.mul_(2)
    torch.save(network.state_dict(), tmp_path / "tuned.pth")
    images = pictures(2, 32, 32), pictures(2, 32, 32, seed=1)
    tuned = load_pair("lpips_alex", weights=str(tmp_path / "tuned.pth"))
    plain = load_pair("lpips_alex", weights=str(trunks["alexnet"]))
    torch.testing.assert_close(tuned(*images), 2 * plain(*images))
    assert tuned.identity != plain.identity


def test_nothing_takes_gradients(trunks: dict[str, Path], pictures: Pictures) -> None:
    pair = load_pair("lpips_alex", weights=str(trunks["alexnet"]))
    assert not any(value.requires_grad for value in pair.network.parameters())
    images = pictures(1, 32, 32).float().requires_grad_()
    assert not pair(images, images.flip(3)).requires_grad


@pytest.mark.parametrize(("name", "least"), [("lpips_alex", 31), ("lpips_vgg", 16)])
def test_pictures_that_are_too_small_say_so(name: str, least: int, trunks: dict[str, Path], pictures: Pictures) -> None:
    pair = load_pair(name, weights=str(trunks[TRUNKS[name]]))
    images = pictures(1, least, least)
    assert torch.isfinite(pair(images, images.flip(3))).all()
    for size in (1, least - 1):
        with pytest.raises(ValueError, match=f"{name} needs images of at least {least} pixels a side"):
            pair(pictures(1, 64, size), pictures(1, 64, size))


def test_weights_of_another_network_are_an_error(trunks: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"does not fit alexnet: \d+ of \d+ entries differ") as caught:
        load_pair("lpips_alex", weights=str(trunks["vgg16"]))
    assert len(str(caught.value)) < 600
