"""Small box-downsampled images as features: no weights, and only coarse layout and colour."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.weights import WeightsRequirement

_SIDE = 32


class SmallPixels(nn.Module):
    """uint8 (N, 3, H, W) to the pixels of a 32 x 32 box average, centred: float32 (N, 3072) in [-1, 1]."""

    dimension = 3 * _SIDE * _SIDE

    def forward(self, images: Tensor) -> Tensor:
        """Average the boxes and centre; an image smaller than 32 px is enlarged by repeating pixels."""
        return F.adaptive_avg_pool2d(images.float(), (_SIDE, _SIDE)).flatten(start_dim=1) / 127.5 - 1.0


def required(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """Nothing."""
    return []


def build(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> Extractor:
    """The ``pixels`` extractor, which has no weights.

    Raises:
        ValueError: If weights are given.
    """
    if weights is not None:
        raise ValueError(f"The extractor 'pixels' has no weights, but `weights={weights!r}` was given. Leave it out.")
    return Extractor(SmallPixels(), Identity("pixels", weights="none", preprocessing="box 32x32, [-1, 1]"))
