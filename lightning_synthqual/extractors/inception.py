"""The FID network: Inception v3 of 2015-12-05 as ported by torch-fidelity."""

import io
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.weights import (
    PublishedWeights,
    find_weights,
    load_state,
    read_state_dict,
    sha256_of_file,
)

_log = logging.getLogger(__name__)
PUBLISHED = PublishedWeights("inception", "weights-inception-2015-12-05-6726825d.pth", URL_INCEPTION_V3, "6726825d")


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
    """uint8 (N, 3, H, W) to ``pool`` (N, 2048) and ``logits`` (N, 1008, without bias)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _Architecture()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Resize to 299 as TensorFlow 1 did, scale by (x - 128) / 128, and run the network."""
        pool, logits = self.trunk(images)
        return {"pool": pool, "logits": logits}


def build(weights: str | None = None, weights_dir: str | None = None) -> Extractor:
    """The ``inception`` extractor.

    Raises:
        FileNotFoundError: If the weights are missing and cannot be downloaded.
        ValueError: If the weights file is damaged or belongs to another network.
    """
    path = find_weights(PUBLISHED, weights, weights_dir)
    network = InceptionNetwork()
    load_state(network.trunk, read_state_dict(path), path)
    digest = sha256_of_file(path)
    published = digest.startswith(PUBLISHED.sha256_prefix)
    if not published:
        _log.warning(
            "`inception` uses the weights of `%s`, which are not the published FID weights: "
            "`fid` and `kid` are not comparable with published numbers.",
            path,
        )
    identity = Identity(
        "inception",
        weights=digest,
        preprocessing="TensorFlow 1 bilinear to 299, (x - 128) / 128",
        origin="published" if published else "custom",
    )
    return Extractor(network, identity, embedding="pool")
