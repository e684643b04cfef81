"""The VGG16 of improved precision and recall: torchvision's ImageNet weights, features of the second layer of 4096."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, vgg16

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.resize import tensorflow1_bilinear
from lightning_synthqual.extractors.weights import (
    PublishedWeights,
    WeightsRequirement,
    find_weights,
    load_state,
    read_state_dict,
    requirement,
    warn_of_custom_weights,
)

PUBLISHED = PublishedWeights("vgg16", "vgg16-397923af.pth", VGG16_Weights.IMAGENET1K_V1.url, "397923af")
_SIDE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG16Network(nn.Module):
    """uint8 (N, 3, H, W) to the rectified activations (N, 4096) of the second fully connected layer.

    Source: Kynkäänniemi et al. 2019, arXiv:1904.06991; agrees with torch-fidelity's ``vgg16`` (``fc2_relu``).
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.trunk = vgg16()
        self.register_buffer("mean", 255 * torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize to 224 as TensorFlow 1 did, normalise, and run the network without its last layer."""
        x = (tensorflow1_bilinear(images, (_SIDE, _SIDE)) - self.mean) / self.std
        x = self.trunk.features(x.contiguous(memory_format=torch.channels_last))
        features: Tensor = self.trunk.classifier[:5](self.trunk.avgpool(x).flatten(start_dim=1))
        return features


def required(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """The weights file and where it lies."""
    return [requirement(PUBLISHED, weights_dir)]


def build(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> Extractor:
    """The ``vgg16`` extractor.

    Raises:
        FileNotFoundError: If the weights are missing and cannot be downloaded.
        ValueError: If the weights file is damaged or belongs to another network.
    """
    file = find_weights(PUBLISHED, weights, weights_dir)
    network = VGG16Network()
    load_state(network.trunk, read_state_dict(file.path), file.path)
    network.trunk.to(memory_format=torch.channels_last)
    warn_of_custom_weights(name, file, "its scores are not comparable with published numbers")
    preprocessing = "TensorFlow 1 bilinear to 224, ImageNet mean and std"
    return Extractor(network, Identity(name, file.sha256, preprocessing, origin=file.origin))
