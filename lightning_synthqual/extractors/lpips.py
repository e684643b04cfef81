"""LPIPS 0.1: the lpips package's networks and heads on torchvision's ImageNet trunks."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from lpips import LPIPS
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, VGG16_Weights

from lightning_synthqual.extractors.base import Identity
from lightning_synthqual.extractors.pairs import PairNetwork
from lightning_synthqual.extractors.weights import (
    PublishedWeights,
    WeightsRequirement,
    find_weights,
    load_state,
    read_state_dict,
    requirement,
    sha256_of_state,
    warn_of_custom_weights,
)

PUBLISHED: dict[str, PublishedWeights] = {
    "lpips_alex": PublishedWeights(
        "lpips_alex", "alexnet-owt-7be5be79.pth", AlexNet_Weights.IMAGENET1K_V1.url, "7be5be79"
    ),
    "lpips_vgg": PublishedWeights("lpips_vgg", "vgg16-397923af.pth", VGG16_Weights.IMAGENET1K_V1.url, "397923af"),
}
_MIN_SIDE = {"lpips_alex": 31, "lpips_vgg": 16}  # smaller images have no pixel left at the last stage


class LpipsNetwork(nn.Module):
    """Two stacks (N, 3, H, W) with values in [0, 255] to distances (N,).

    Args:
        name: ``"lpips_alex"`` or ``"lpips_vgg"``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks torchvision for random weights by a deprecated argument
            self.model = LPIPS(net=name.removeprefix("lpips_"), pnet_rand=True, verbose=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Scale to [-1, 1] and measure."""
        min_side = _MIN_SIDE[self.name]
        if min(first.shape[2:]) < min_side:
            raise ValueError(
                f"{self.name} needs images of at least {min_side} pixels a side, but got {tuple(first.shape[2:])}. "
                "Enlarge them, for example by `image_size=64`."
            )
        distances: Tensor = self.model(first.float() / 127.5 - 1.0, second.float() / 127.5 - 1.0)
        return distances.flatten()


def required(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """The trunk's weights file and its path; the heads are part of the lpips package."""
    return [requirement(PUBLISHED[name], weights_dir)]


def build_pair(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> PairNetwork:
    """``lpips_alex`` or ``lpips_vgg``.

    Args:
        name: Name of the network.
        weights: A trunk in torchvision's format, or a whole state dict of the lpips package with heads.
        weights_dir: A folder of trunks by their published names.

    Raises:
        FileNotFoundError: If the weights are missing and cannot be downloaded.
        ValueError: If the weights file is damaged or belongs to another network.
    """
    file = find_weights(PUBLISHED[name], weights, weights_dir)
    network = LpipsNetwork(name)
    state = read_state_dict(file.path)
    if any(key.startswith("net.slice") for key in state):
        load_state(network.model, state, file.path)
    else:
        load_state(network.model.net, _renamed(network.model.net, state), file.path)
    warn_of_custom_weights(name, file, "its distances are not comparable with published numbers")
    # The hash of the whole: the heads, which matter as much, are in another file.
    identity = Identity(name, sha256_of_state(network), "[-1, 1], no resize", origin=file.origin)
    return PairNetwork(network, identity)


def _renamed(trunk: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision classifier's state dict under the names that the lpips package gives to its convolutions."""
    names = {f"features.{name.partition('.')[2]}": name for name in trunk.state_dict()}
    return {names.get(key, key): value for key, value in state.items() if not key.startswith("classifier.")}
