"""DINOv2 through timm, with position embeddings resampled as the authors' own hub models do it."""

import math
from collections.abc import Mapping
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.resize import pillow
from lightning_synthqual.extractors.weights import (
    PublishedWeights,
    WeightsRequirement,
    find_weights,
    hub_weights,
    load_state,
    read_state_dict,
    requirement,
    warn_of_custom_weights,
)

_SIDE, _PATCH = 224, 14
_GRID = _SIDE // _PATCH
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OFFSET = 0.1  # the hub's guard against rounding in the scale, which shifts every sample a little

ARCHITECTURES: dict[str, str] = {
    "dinov2": "vit_large_patch14_dinov2.lvd142m",
    "dinov2_vitb14": "vit_base_patch14_dinov2.lvd142m",
    "dinov2_vits14": "vit_small_patch14_dinov2.lvd142m",
}
_HUB_FILES = {
    "dinov2": "dinov2_vitl14_pretrain.pth",
    "dinov2_vitb14": "dinov2_vitb14_pretrain.pth",
    "dinov2_vits14": "dinov2_vits14_pretrain.pth",
}


class DinoV2Network(nn.Module):
    """uint8 (N, 3, H, W) to the class token (N, D) after the final norm, not normalised.

    Args:
        trunk: timm's vision transformer for 224 pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize to 224 by Pillow's bicubic, normalise, and run the network."""
        x = pillow(images, (_SIDE, _SIDE)).float() / 255.0
        features: Tensor = self.trunk((x - self.mean) / self.std)
        return features


def resample_positions(positions: Tensor, grid: int) -> Tensor:
    """Bring the position embeddings of a pretrained grid to another, as the published hub models do.

    Args:
        positions: (1, 1 + G * G, D), the class token's first.
        grid: Patches along a side of the image.

    Returns:
        (1, 1 + grid * grid, D): bicubic without antialiasing, at a scale that is 0.1 patches too large.
    """
    before = math.isqrt(positions.shape[1] - 1)
    if before == grid:
        return positions
    token, patches = positions[:, :1].float(), positions[:, 1:].float()
    patches = patches.reshape(1, before, before, -1).permute(0, 3, 1, 2)
    scale = float(grid + _OFFSET) / before
    patches = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic", antialias=False)
    return torch.cat([token, patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def fit_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of timm's or the hub's format for images of 224 pixels."""
    fitted = {name: value for name, value in state.items() if name != "mask_token"}  # the hub's, for training only
    positions = fitted.get("pos_embed")
    if (
        positions is not None
        and positions.ndim == 3
        and math.isqrt(positions.shape[1] - 1) ** 2 == positions.shape[1] - 1
    ):
        fitted["pos_embed"] = resample_positions(positions, _GRID)
    return fitted


def published(name: str) -> PublishedWeights:
    """The file in timm's format; the authors' own fits too."""
    return hub_weights(name, f"timm/{ARCHITECTURES[name]}", "model.safetensors", alternatives=(_HUB_FILES[name],))


def required(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """The weights file and its path."""
    return [requirement(published(name), weights_dir)]


def build(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> Extractor:
    """``dinov2`` (ViT-L/14), ``dinov2_vitb14`` or ``dinov2_vits14``.

    Raises:
        FileNotFoundError: If the weights are missing and cannot be downloaded.
        ValueError: If the weights file is damaged or belongs to another network.
    """
    file = find_weights(published(name), weights, weights_dir)
    trunk = timm.create_model(ARCHITECTURES[name].partition(".")[0], pretrained=False, img_size=_SIDE, num_classes=0)
    load_state(trunk, fit_state(read_state_dict(file.path)), file.path)
    warn_of_custom_weights(name, file, "its scores are not comparable with published numbers")
    preprocessing = "Pillow's bicubic to 224, ImageNet mean and std, hub's position embeddings"
    return Extractor(DinoV2Network(trunk), Identity(name, file.sha256, preprocessing, origin=file.origin))
