"""The FID network: Inception v3 of 2015-12-05 as ported by torch-fidelity, with one of three resize protocols."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.resize import Size, antialiased_bilinear, pillow_float, tensorflow1_bilinear
from lightning_synthqual.extractors.weights import (
    PublishedWeights,
    WeightsRequirement,
    find_weights,
    load_state,
    read_state_dict,
    requirement,
    warn_of_custom_weights,
)

PUBLISHED = PublishedWeights("inception", "weights-inception-2015-12-05-6726825d.pth", URL_INCEPTION_V3, "6726825d")
_SIDE = 299


class Protocol(NamedTuple):
    """How images are resized to 299 pixels."""

    resize: Callable[[Tensor, Size], Tensor]
    words: str


PROTOCOLS: dict[str, Protocol] = {
    "inception": Protocol(tensorflow1_bilinear, "TensorFlow 1 bilinear to 299"),
    "inception_antialias": Protocol(antialiased_bilinear, "antialiased bilinear to 299, as torchmetrics 1.8"),
    "inception_clean": Protocol(pillow_float, "Pillow's bicubic on floats to 299, clamped, as clean-fid"),
}


class _Architecture(FeatureExtractorInceptionV3):
    """torch-fidelity's network without its own loading, which would unpickle the file."""

    def __init__(self) -> None:
        nothing = io.BytesIO()
        torch.save({}, nothing)
        nothing.seek(0)
        super().__init__("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=nothing)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        if state_dict:
            return super().load_state_dict(state_dict, *args, **kwargs)
        return None


class InceptionNetwork(nn.Module):
    """uint8 (N, 3, H, W) to ``pool`` (N, 2048) and ``logits`` (N, 1008, without bias).

    Args:
        resize: Function that resizes images to 299 x 299 floats in [0, 255].
    """

    def __init__(self, resize: Callable[[Tensor, Size], Tensor] = tensorflow1_bilinear) -> None:
        super().__init__()
        self.resize = resize
        self.trunk = _Architecture()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Resize, scale by (x - 128) / 128, and run the network."""
        x = (self.resize(images, (_SIDE, _SIDE)) - 128) / 128
        x = x.contiguous(memory_format=torch.channels_last)
        for name, layer in self.trunk.named_children():
            if name == "fc":
                break
            x = layer(x)
        pool = x.flatten(start_dim=1)
        return {"pool": pool, "logits": pool @ self.trunk.fc.weight.T}

    def accelerate(self) -> None:
        """Fold each BatchNorm into the convolution before it and lay weights out channels last: rounding apart, same.

        Afterwards the state dict is no longer the published one.
        """
        for part in self.trunk.modules():
            if isinstance(getattr(part, "bn", None), nn.BatchNorm2d):
                part.conv, part.bn = fuse_conv_bn_eval(part.conv.eval(), part.bn.eval()), nn.Identity()
        self.trunk.to(memory_format=torch.channels_last)


def required(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """The weights file and its path."""
    return [requirement(PUBLISHED, weights_dir)]


def build(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> Extractor:
    """``inception`` (the published protocol), ``inception_antialias`` or ``inception_clean``.

    Raises:
        FileNotFoundError: If the weights are missing and cannot be downloaded.
        ValueError: If the weights file is damaged or belongs to another network.
    """
    file = find_weights(PUBLISHED, weights, weights_dir)
    protocol = PROTOCOLS[name]
    network = InceptionNetwork(protocol.resize)
    load_state(network.trunk, read_state_dict(file.path), file.path)
    network.accelerate()
    warn_of_custom_weights(name, file, "its scores are not comparable with published numbers")
    preprocessing = f"{protocol.words}, (x - 128) / 128"
    return Extractor(network, Identity(name, file.sha256, preprocessing, origin=file.origin), embedding="pool")
