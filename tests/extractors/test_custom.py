import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lightning_synthqual.extractors import Extractor, Identity, load
from lightning_synthqual.extractors.custom import build

Pictures = Callable[..., Tensor]


class Sees(nn.Module):
    """Returns what it was given."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.linear(images.float().mean(dim=(2, 3))))


class Factor(nn.Module):
    """Has a plain attribute, and no weights."""

    def __init__(self, factor: Any) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images.float().flatten(1) * self.factor


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("a_module_of_networks")
    monkeypatch.setitem(sys.modules, "a_module_of_networks", module)
    module.Sees, module.ready, module.factory, module.number = Sees, Sees(), lambda: Sees(), 3
    module.extractor = load("pixels")
    return module


def test_without_a_range_the_network_gets_uint8(pictures: Pictures) -> None:
    seen: list[Tensor] = []

    class Looks(Sees):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images)

    images = pictures(2, 4, 5)
    extractor = build("mine", Looks())
    assert torch.equal(extractor(images)["features"], images.flatten(1).float())
    assert seen[0].dtype == torch.uint8


@pytest.mark.parametrize("span", [(0.0, 1.0), (-1.0, 1.0), [0, 255], (-2.0, 3.0)])
def test_a_range_is_what_0_and_255_become(pictures: Pictures, span: Any) -> None:
    images = pictures(2, 4, 5)
    found = build("mine", {"network": Sees(), "input_range": span})(images)["features"]
    low, high = span
    torch.testing.assert_close(found, images.flatten(1).float() / 255 * (high - low) + low, atol=1e-5, rtol=1e-6)


def test_mean_and_std_are_taken_after_the_range(pictures: Pictures) -> None:
    images = pictures(2, 4, 5)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
    spec = {"network": Sees(), "input_range": (0.0, 1.0), "mean": mean, "std": std}
    expected = (images.float() / 255 - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    torch.testing.assert_close(build("mine", spec)(images)["features"], expected.flatten(1))


@pytest.mark.parametrize(("size", "meant"), [(8, [8, 8]), ((6, 9), [6, 9]), ([30, 30], [30, 30])])
def test_a_size_is_resized_to_on_uint8(pictures: Pictures, size: Any, meant: list[int]) -> None:
    images = pictures(2, 12, 15)
    found = build("mine", {"network": Sees(), "input_size": size})(images)["features"]
    pillows = [Image.fromarray(image.permute(1, 2, 0).numpy()).resize(meant[::-1], 3) for image in images]  # 3: bicubic
    expected = torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pillows])
    assert torch.equal(found, expected.flatten(1).float())


def test_the_users_module_is_left_alone(pictures: Pictures) -> None:
    network = Small().train()
    network.norm.eval()
    network.linear.bias.requires_grad_(False)
    flags = [part.training for part in network.modules()]
    grads = [parameter.requires_grad for parameter in network.parameters()]
    state = {name: value.clone() for name, value in network.state_dict().items()}
    extractor = build("mine", network)
    extractor(pictures(4, 5, 5))
    extractor.to(torch.device("meta"))
    assert [part.training for part in network.modules()] == flags
    assert [parameter.requires_grad for parameter in network.parameters()] == grads
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not {id(part) for part in network.modules()} & {id(part) for part in extractor.network.modules()}
    assert not any(part.training for part in extractor.network.modules())


def test_later_training_does_not_reach_the_extractor(pictures: Pictures) -> None:
    network, images = Small().eval(), pictures(4, 5, 5)
    extractor = build("mine", network)
    before = extractor(images)["features"]
    nn.init.zeros_(network.linear.weight)
    assert torch.equal(extractor(images)["features"], before)


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("path", ["Sees", "ready", "factory"])
@pytest.mark.parametrize("as_dict", [True, False])
def test_an_import_path_names_a_class_a_network_or_a_factory(pictures: Pictures, path: str, as_dict: bool) -> None:
    path, images = f"a_module_of_networks.{path}", pictures(1, 4, 4)
    extractor = build("mine", {"network": path} if as_dict else path)
    assert torch.equal(extractor(images)["features"], images.flatten(1).float())


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("nowhere.to.be.found", ValueError, r"extractors\['mine'\].*names nothing that can be imported"),
        ("a_module_of_networks.number", TypeError, r"`extractors\['mine'\]` must be an nn.Module, .* but got int"),
        (3, TypeError, "but got int"),
        (lambda: "a word", TypeError, "but got str"),
        ({"netwrok": Sees()}, ValueError, r"must have the key 'network' and may have .* its keys are 'netwrok'"),
        ({}, ValueError, "its keys are none"),
        ({"network": Sees(), "size": 3}, ValueError, "its keys are 'network', 'size'"),
        ({"network": Sees(), "mean": (0.5,)}, ValueError, "mean or std without `input_range`"),
        ({"network": Sees(), "std": (0.5,)}, ValueError, "mean or std without `input_range`"),
    ],
)
def test_faults_name_the_extractor(spec: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build("mine", spec)


def test_the_identity_changes_with_weights_code_and_preprocessing() -> None:
    network = Small()
    first = build("mine", network).identity
    assert build("mine", network).identity == first
    assert (first.name, first.origin) == ("mine", "custom")
    with torch.no_grad():
        network.linear.weight[0, 0] += 1e-6
    weights = build("mine", network).identity
    network.norm.running_mean[0] = 3.0
    buffers = build("mine", network).identity
    size = build("mine", {"network": network, "input_size": 8}).identity
    span = build("mine", {"network": network, "input_range": (0.0, 1.0)}).identity
    mean = build("mine", {"network": network, "input_range": (0.0, 1.0), "mean": (0.5,)}).identity
    network.linear = nn.Sequential(network.linear)
    structure = build("mine", network).identity
    identities = [first, weights, buffers, size, span, mean, structure, build("other", network).identity]
    assert len({identity.key for identity in identities}) == 8


def test_the_identity_changes_with_the_code_of_equal_weights() -> None:
    identities = [build("mine", network).identity for network in (Sees(), nn.Flatten(), nn.Flatten(2))]
    assert len({identity.weights for identity in identities}) == 1
    assert len({identity.key for identity in identities}) == 3


def test_half_precision_weights_have_an_identity() -> None:
    assert build("mine", Small().bfloat16()).identity.weights != build("mine", Small()).identity.weights


def test_a_network_may_name_several_outputs(pictures: Pictures) -> None:
    class Two(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"features": images[:, 0, 0], "logits": images[:, 1, 0]}

    assert list(build("mine", Two())(pictures(2, 3, 3))) == ["features", "logits"]


class WantsFloats(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images).flatten(1)


class WantsBytes(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.uint8:
            raise TypeError("bytes, please")
        return images.flatten(1).float()


def test_bytes_where_floats_are_wanted_say_what_to_declare(pictures: Pictures) -> None:
    with pytest.raises(RuntimeError, match=r"WantsFloats failed on images of shape \(2, 3, 4, 5\) .*`input_range`"):
        build("mine", WantsFloats())(pictures(2, 4, 5))
    spec = {"network": WantsFloats(), "input_range": (0.0, 1.0)}
    assert build("mine", spec)(pictures(2, 4, 5))["features"].shape == (2, 12)


def test_floats_where_bytes_are_wanted_say_what_to_declare(pictures: Pictures) -> None:
    spec = {"network": WantsBytes(), "input_range": (0.0, 1.0)}
    with pytest.raises(RuntimeError, match=r"given float images in \(0.0, 1.0\), as declared; leave `input_range` out"):
        build("mine", spec)(pictures(2, 4, 5))
    assert build("mine", WantsBytes())(pictures(2, 4, 5))["features"].shape == (2, 60)


def test_images_of_one_pixel_say_that_a_size_can_be_declared(pictures: Pictures) -> None:
    spec = {"network": WantsFloats(), "input_range": (0.0, 1.0)}
    with pytest.raises(RuntimeError, match="Declare `input_size` if it takes another size"):
        build("mine", spec)(pictures(2, 1, 1))
    assert build("mine", {**spec, "input_size": 4})(pictures(2, 1, 1))["features"].shape == (2, 8)


def test_an_extractor_is_taken_as_it_is_under_the_users_name(pictures: Pictures) -> None:
    given = load("wavelet", precision="bfloat16")
    mine = build("mine", given)
    assert mine.identity == replace(given.identity, name="mine")
    assert torch.equal(mine(pictures(2, 8, 8))["features"], given(pictures(2, 8, 8))["features"])
    assert given.identity.name == "wavelet"


def test_an_extractor_keeps_its_outputs_and_is_not_moved() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.zeros(1))

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"pool": images.float().mean(dim=(2, 3)) + self.shift, "logits": images[:, 0, 0].float()}

    given = Extractor(Two(), Identity("two", weights="none", preprocessing="none"), embedding="pool")
    assert build("mine", given).to("meta").device.type == "meta"
    assert build("mine", given).embedding == "pool"
    assert given.device.type == given.network.shift.device.type == "cpu"


@pytest.mark.usefixtures("importable")
def test_an_extractor_may_be_imported_or_made_and_stands_for_a_network() -> None:
    for spec in (lambda: load("pixels"), "a_module_of_networks.extractor"):
        assert build("mine", spec).identity.name == "mine"
    assert build("mine", {"network": load("pixels")}).identity.preprocessing == load("pixels").identity.preprocessing
    with pytest.raises(ValueError, match=r"is an Extractor, which has its own preprocessing, but input_size was given"):
        build("mine", {"network": load("pixels"), "input_size": 8})


@pytest.mark.parametrize(
    ("spec", "other"), [(Factor(1.0), Factor(2.0)), (Factor(torch.ones(1)), Factor(torch.zeros(1)))]
)
def test_attributes_are_part_of_the_identity(spec: nn.Module, other: nn.Module) -> None:
    assert build("mine", spec).identity.weights == build("mine", other).identity.weights
    assert build("mine", spec).identity != build("mine", other).identity


def test_a_traced_network_is_taken(pictures: Pictures) -> None:
    network = Small().eval()
    traced = torch.jit.trace(network, pictures(2, 4, 4))
    torch.testing.assert_close(
        build("mine", traced)(pictures(2, 8, 8))["features"], build("mine", network)(pictures(2, 8, 8))["features"]
    )
