import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_synthqual.extractors import Extractor, Identity, PairNetwork, load, load_pair
from lightning_synthqual.extractors.registry import (
    CATALOGUE,
    PAIRS,
    load_configured,
    load_configured_pair,
    required_weights,
)

Pictures = Callable[..., Tensor]


@pytest.mark.parametrize(("name", "meant"), [("wavelt", "wavelet"), ("Inception", "inception"), ("pixel", "pixels")])
def test_an_unknown_name_gets_a_suggestion(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown extractor '{name}'; did you mean '{meant}'"):
        load(name)


@pytest.mark.parametrize("name", ["", "qqq"])
def test_a_name_like_no_other_gets_the_list(name: str) -> None:
    with pytest.raises(ValueError, match=r"Known: inception, inception_antialias, .* wavelet, pixels"):
        load(name)


def test_an_unknown_pair_network_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="Unknown pair network 'lpips'; did you mean 'lpips_vgg'"):
        load_pair("lpips")


@pytest.mark.parametrize("name", ["wavelet", "pixels"])
def test_bfloat16_is_in_the_identity(pictures: Pictures, name: str) -> None:
    half = load(name, precision="bfloat16")
    assert half.identity.precision == "bfloat16"
    assert half.identity.key != load(name).identity.key
    assert half(pictures(2, 16, 16))["features"].dtype == torch.float32


def test_tf32_is_an_error_where_the_device_has_none() -> None:
    for function, name in ((load, "wavelet"), (load_pair, "lpips_alex")):
        with pytest.raises(ValueError, match=r"'tf32'` needs an NVIDIA GPU .* the network is on cpu\."):
            function(name, precision="tf32")
    network = load("wavelet").with_precision("tf32")
    with pytest.raises(ValueError, match="needs an NVIDIA GPU"):
        network(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be 'float32', 'tf32' or 'bfloat16', but got 'half'"):
        load("wavelet", precision="half")


@pytest.mark.parametrize("name", ["inception", "inception_clean", "pixels", "wavelet"])
def test_each_name_builds_the_extractor_of_that_name(name: str, inception_weights: Path) -> None:
    weights = str(inception_weights) if name.startswith("inception") else None
    assert load(name, weights=weights).identity.name == name


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "name",
    # The weights of efficientnet_lite0 come with a package and are never downloaded.
    [
        *(each for each in CATALOGUE if each != "efficientnet_lite0"),
        *PAIRS,
        "ViT-B-16-SigLIP",
        "ViT-B-32:laion2b_s34b_b79k",
    ],
)
def test_without_network_and_file_the_error_names_file_origin_and_both_ways(name: str, tmp_path: Path) -> None:
    requirements = required_weights(name, str(tmp_path))
    if name in ("pixels", "wavelet"):
        assert requirements == []
        return
    assert all(requirement.path is None for requirement in requirements)
    with pytest.raises(FileNotFoundError) as caught:
        (load_pair if name in PAIRS else load)(name, weights_dir=str(tmp_path))
    message = str(caught.value)
    file, url, _ = requirements[0]
    for part in (file, url, "could not be downloaded", "'weights': 'path/to/file'", "`weights_dir=`"):
        assert part in message
    assert "service not known" in message or "locate the file on the Hub" in message


def test_no_extractor_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, lightning_synthqual.extractors as e; e.load('wavelet'); "
        "sys.exit(' '.join(m for m in sys.modules if m in ('timm', 'open_clip', 'lpips') "
        "or m.startswith('lightning_synthqual.extractors.') and m.endswith(('inception', 'custom', 'pixels'))) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("spec", [None, {}, {"precision": "bfloat16"}])
def test_a_catalogue_name_is_configured_by_a_dict(spec: Any) -> None:
    extractor = load_configured("wavelet", spec, None, "cpu")
    assert extractor.identity.name == "wavelet"
    assert extractor.identity.precision == (spec or {}).get("precision", "float32")


def test_weights_of_a_configuration_are_used(inception_weights: Path) -> None:
    extractor = load_configured("inception", {"weights": str(inception_weights)}, None, "cpu")
    assert extractor.identity.origin == "custom"


def test_another_name_is_the_users_network(pictures: Pictures) -> None:
    extractor = load_configured("mine", nn.Sequential(nn.Flatten()), None, "cpu")
    assert extractor.identity.name == "mine"
    assert extractor(pictures(2, 3, 3))["features"].shape == (2, 27)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (nn.ReLU(), TypeError, r"`extractors\['wavelet'\]` .* but got ReLU. Give your own network another name"),
        ("x.pth", TypeError, "but got str"),
        ({"weight": "x.pth"}, ValueError, r"takes 'weights' and 'precision', but got \['weight'\]"),
    ],
)
def test_other_configurations_of_a_catalogue_name_are_errors(spec: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_configured("wavelet", spec, None, "cpu")


def test_an_extractor_configures_its_own_name_and_no_other() -> None:
    half = load("wavelet", precision="bfloat16")
    assert load_configured("wavelet", half, None, "cpu").identity == half.identity
    with pytest.raises(TypeError, match="Give your own network another name"):
        load_configured("pixels", half, None, "cpu")


def test_an_extractor_is_copied_to_the_device_that_is_asked_for() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 8), nn.Flatten())
    given = Extractor(network, Identity("x", "none", "none"))
    moved = load_configured("mine", given, None, "meta")
    assert {each.device.type for each in moved.network.parameters()} == {moved.device.type} == {"meta"}
    assert {each.device.type for each in network.parameters()} == {given.device.type} == {"cpu"}


def test_a_name_that_leaves_its_folder_is_refused() -> None:
    with pytest.raises(ValueError, match=r"The extractor name '\.\./\.\./up' must consist of"):
        load_configured("../../up", nn.Flatten(), None, "cpu")


def test_a_pair_network_of_the_users_is_taken_as_it_is() -> None:
    class Difference(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return (first.float() - second.float()).abs().mean(dim=(1, 2, 3))

    given = PairNetwork(Difference(), Identity("difference", "none", "none"))
    pair = load_configured_pair("mine", given, None, "cpu")
    assert (pair.identity.name, given.identity.name) == ("mine", "difference")
    assert pair(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 9.0)).tolist() == [9.0]
