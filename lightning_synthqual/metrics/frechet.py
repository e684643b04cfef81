"""Fréchet distance between Gaussian fits of two feature sets."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.share import Share, tiles

_ROWS = 4096  # rows that are converted to float64 at once


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian fit: mean (D,) and a factor (r, D) with covariance = factorᵀ factor (ddof=1), both float64."""

    mean: Tensor
    factor: Tensor


def frechet_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Squared Fréchet (2-Wasserstein) distance between Gaussian fits of two feature sets; lower is better.

    ``|m1 - m2|² + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))`` with covariances divided by N - 1, in float64. On the pool
    features of the FID network this is the FID of Heusel et al. 2017 (arXiv:1706.08500); it agrees with
    torch-fidelity, also where the covariances are rank deficient (N < D), which is no error but a biased estimate.

    Args:
        real: Features (N, D), any floating dtype, any device.
        fake: Features (M, D).

    Returns:
        Scalar float64 tensor, at least 0.

    Raises:
        TypeError: If the features are not floating point.
        ValueError: If a set has fewer than 2 rows, contains NaN or infinity, or the dimensions differ.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> round(frechet_distance(x, x + 3.0).item(), 6)
        18.0
    """
    real, fake = check_pair(real, fake)
    return distance_to_gaussian(fit_gaussian(real), fake)


def fit_gaussian(features: Tensor, share: Share | None = None) -> Gaussian:
    """Fit a Gaussian to features (N, D); the costly part of a reference, done once."""
    count, dimension = features.shape
    if count <= dimension:
        mean = features.double().mean(dim=0)
        factor = _centred_factor(features, mean)
        values, vectors = torch.linalg.eigh(factor @ factor.T)
        factor = vectors.T @ factor
    else:
        mean, covariance = _moments(features, share or Share())
        values, vectors = torch.linalg.eigh(covariance)
        factor = values.clamp(min=0).sqrt()[:, None] * vectors.T
    # Directions without variance hold only rounding errors, whose square roots would add up in the trace.
    return Gaussian(mean, factor[values > len(values) * torch.finfo(values.dtype).eps * values[-1]])


def distance_to_gaussian(real: Gaussian, fake: Tensor, share: Share | None = None) -> Tensor:
    """Squared Fréchet distance from a fitted reference to features (M, D)."""
    # tr((S1 S2)^(1/2)) is the sum of the singular values of factor1 factor2ᵀ: no square root of an unsymmetric product.
    if fake.shape[0] <= fake.shape[1]:
        mean = fake.double().mean(dim=0)
        factor = _centred_factor(fake, mean)
        trace = factor.square().sum()
        cross = torch.linalg.svdvals(real.factor @ factor.T).sum()
    else:
        mean, covariance = _moments(fake, share or Share())
        trace = covariance.trace()
        product = real.factor @ covariance @ real.factor.T
        cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    distance: Tensor = (real.mean - mean).square().sum() + real.factor.square().sum() + trace - 2 * cross
    return distance.clamp(min=0)


def _centred_factor(features: Tensor, mean: Tensor) -> Tensor:
    return (features.double() - mean) / sqrt(features.shape[0] - 1)


def _moments(features: Tensor, share: Share) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D), in one pass and one sum over the processes."""
    count, dimension = features.shape
    origin = features[0].double()  # any row of the cloud: sums about it lose no digits to a far-off mean
    sums = torch.zeros(dimension + 1, dimension, dtype=torch.float64, device=features.device)
    for rows in tiles(share.rows(count), _ROWS):
        block = features[rows].double() - origin
        sums[0] += block.sum(dim=0)
        sums[1:].addmm_(block.T, block)
    sums = share.total(sums)
    shift = sums[0] / count
    return origin + shift, (sums[1:] - count * torch.outer(shift, shift)) / (count - 1)
