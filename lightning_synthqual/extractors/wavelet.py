"""Haar wavelet-packet statistics: features without weights that assume nothing about the content of the images."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_synthqual.extractors.base import Extractor, Identity
from lightning_synthqual.extractors.weights import WeightsRequirement

_LUMA_LEVELS, _CHROMA_LEVELS = 3, 1
_FLOOR = 0.5 / 127.5  # half a grey level: the amplitude that a constant sub-band is taken to have


class WaveletStatistics(nn.Module):
    """Statistics of the sub-bands of an orthonormal Haar wavelet packet, in the spirit of arXiv:2312.15289.

    The luma is split three times (64 sub-bands), the two chroma channels once (4 each). Each sub-band gives its mean,
    its log amplitude (root mean square) and its log sparsity (fourth-moment amplitude over root mean square).
    """

    dimension = 3 * (4**_LUMA_LEVELS + 2 * 4**_CHROMA_LEVELS)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) to float32 (N, 216); sides are padded to multiples of 8 by repeating the border."""
        x = images.float() / 127.5 - 1.0
        unit = 2**_LUMA_LEVELS
        x = F.pad(x, (0, -x.shape[-1] % unit, 0, -x.shape[-2] % unit), mode="replicate")
        red, green, blue = x.unbind(dim=1)
        luma = torch.stack([(red + green + blue) / 3], dim=1)
        chroma = torch.stack([red - green, (red + green) / 2 - blue], dim=1)
        return torch.cat([_statistics(luma, _LUMA_LEVELS), _statistics(chroma, _CHROMA_LEVELS)], dim=1)


def _statistics(x: Tensor, levels: int) -> Tensor:
    """Per-sub-band statistics (N, 3 * C * 4^levels) of channels (N, C, H, W)."""
    for _ in range(levels):
        x = haar(x)
    bands = x.flatten(start_dim=2)
    mean = bands.mean(dim=2)
    energy = bands.square().mean(dim=2)
    fourth = bands.pow(4).mean(dim=2)
    amplitude = 0.5 * torch.log(energy + _FLOOR**2)
    sparsity = 0.25 * torch.log(fourth + _FLOOR**4) - amplitude
    return torch.cat([mean, amplitude, sparsity], dim=1)


def haar(x: Tensor) -> Tensor:
    """One Haar step of every channel: (N, C, H, W) to (N, 4 C, H/2, W/2); averages, so that ranges are kept."""
    a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=1) / 4


def required(name: str, weights_dir: str | Path | None = None) -> list[WeightsRequirement]:
    """Nothing."""
    return []


def build(name: str, weights: str | Path | None = None, weights_dir: str | Path | None = None) -> Extractor:
    """The ``wavelet`` extractor, which has no weights.

    Raises:
        ValueError: If weights are given.
    """
    if weights is not None:
        raise ValueError(f"The extractor 'wavelet' has no weights, but `weights={weights!r}` was given. Leave it out.")
    identity = Identity("wavelet", weights="none", preprocessing="haar packet 3 luma, 1 chroma, v1")
    return Extractor(WaveletStatistics(), identity)
