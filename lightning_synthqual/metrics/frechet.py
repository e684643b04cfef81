"""Fréchet distance between Gaussian fits of two feature sets."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Metric, Published, Score
from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.shard import Shard, tiles

_ROWS = 1024  # rows that are converted to float64 at once


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian fit: mean (D,) and a factor (r, D) with covariance = factorᵀ factor, both float64.

    The rows of the factor are orthogonal: principal directions times their standard deviations.
    """

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
        TypeError: If the features are no tensors.
        ValueError: If the features are not floating point, a set has fewer than 2 rows or contains NaN or infinity, or
            the dimensions differ.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
        >>> round(frechet_distance(x, x + 3.0).item(), 6)
        18.0
    """
    real, fake = check_pair(real, fake)
    return distance_to_gaussian(fit_gaussian(real), fake)


def fit_gaussian(features: Tensor, shard: Shard | None = None, *, ddof: int = 1) -> Gaussian:
    """Fit a Gaussian to features (N, D), the covariance divided by N - ``ddof``; the costly part of a reference."""
    count, dimension = features.shape
    if count <= dimension:
        mean = features.double().mean(dim=0)
        factor = _centred_factor(features, mean, ddof)
        values, vectors = torch.linalg.eigh(factor @ factor.T)
        factor = vectors.T @ factor
    else:
        mean, covariance = moments(features, shard, ddof=ddof)
        values, vectors = torch.linalg.eigh(covariance)
        factor = values.clamp(min=0).sqrt()[:, None] * vectors.T
    # Directions without variance hold only rounding errors, whose square roots would add up in the trace.
    return Gaussian(mean, factor[values > len(values) * torch.finfo(values.dtype).eps * values[-1]])


def distance_to_gaussian(real: Gaussian, fake: Tensor, shard: Shard | None = None, *, ddof: int = 1) -> Tensor:
    """Squared Fréchet distance from a fitted reference to features (M, D)."""
    # tr((S1 S2)^(1/2)) is the sum of the singular values of factor1 factor2ᵀ: no square root of an unsymmetric product.
    if fake.shape[0] <= fake.shape[1]:
        mean = fake.double().mean(dim=0)
        factor = _centred_factor(fake, mean, ddof)
        return _distance(real, mean, factor.square().sum(), torch.linalg.svdvals(real.factor @ factor.T))
    return distance_to_moments(real, *moments(fake, shard, ddof=ddof))


def distance_to_moments(real: Gaussian, mean: Tensor, covariance: Tensor) -> Tensor:
    """Squared Fréchet distance from a fitted reference to a mean (D,) and a covariance (D, D)."""
    roots = torch.linalg.eigvalsh(_product(real, covariance)).clamp(min=0).sqrt()
    return _distance(real, mean, covariance.trace(), roots)


def distance_with_error(
    real: Gaussian, real_rows: Tensor, fake: Tensor, shard: Shard | None = None, *, ddof: int = 1
) -> tuple[Tensor, Tensor]:
    """The distance and its standard error over draws of both sets, by the delta method.

    The error is the spread of each row's influence on the distance. All influences follow from the one decomposition
    that gives the distance: with the optimal maps T between the Gaussians, a row z off its own mean moves it by
    ``2 z·(mean - other mean) + zᵀ (1 - T) z``, up to a constant. The noise of what is estimated in there counts as
    spread a second time, so that the variance of the distance's second order, as it is for Gaussians, is taken off:
    where the distributions are equal it is all there is.

    Args:
        real: The fit of ``real_rows``.
        real_rows: Features (N, D).
        fake: Features (M, D).
        shard: This process's shard of the rows.
        ddof: Number subtracted from the number of rows.
    """
    shard = shard or Shard()
    if fake.shape[0] <= fake.shape[1]:
        mean = fake.double().mean(dim=0)
        factor = _centred_factor(fake, mean, ddof)
        vectors, roots, _ = torch.linalg.svd(real.factor @ factor.T, full_matrices=False)
        trace, spread = factor.square().sum(), (factor @ factor.T).square().sum()
    else:
        mean, covariance = moments(fake, shard, ddof=ddof)
        values, vectors = torch.linalg.eigh(_product(real, covariance))
        roots = values.clamp(min=0).sqrt()
        trace, spread = covariance.trace(), covariance.square().sum()
    kept = roots > torch.finfo(roots.dtype).eps * roots.sum()
    roots, vectors = roots[kept], vectors[:, kept]
    to_real = real.factor.T @ (vectors / roots.sqrt())
    to_fake = (real.factor / real.factor.square().sum(dim=1, keepdim=True)).T @ (vectors * roots.sqrt())
    shift = mean - real.mean
    delta = _influence(fake, mean, shift, to_real, shard) + _influence(real_rows, real.mean, -shift, to_fake, shard)
    n, m = len(real_rows), len(fake)
    pairs = roots[:, None] * roots / (roots[:, None] + roots)
    of_covariances = (1 / n + 1 / m) ** 2 * (pairs.square().sum() + pairs.diagonal().square().sum())
    of_means = 2 * spread / m**2 + 2 * real.factor.square().sum(dim=1).square().sum() / n**2
    of_means += 4 * roots.square().sum() / (n * m)
    variance = torch.maximum(delta - of_covariances - of_means, delta / 2)
    return _distance(real, mean, trace, roots), variance.sqrt()


def moments(features: Tensor, shard: Shard | None = None, *, ddof: int = 1) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D), in one pass and one sum over the processes."""
    shard = shard or Shard()
    count, dimension = features.shape
    origin = features[0].double()  # any row of the cloud: sums about it lose no digits to a far-off mean
    sums = torch.zeros(dimension + 1, dimension, dtype=torch.float64, device=features.device)
    for rows in tiles(shard.rows(count), _ROWS):
        block = features[rows].double() - origin
        sums[0] += block.sum(dim=0)
        sums[1:].addmm_(block.T, block)
    sums = shard.total(sums)
    shift = sums[0] / count
    return origin + shift, (sums[1:] - count * torch.outer(shift, shift)) / (count - ddof)


def _distance(real: Gaussian, mean: Tensor, trace: Tensor, roots: Tensor) -> Tensor:
    distance: Tensor = (real.mean - mean).square().sum() + real.factor.square().sum() + trace - 2 * roots.sum()
    return distance.clamp(min=0)


def _product(real: Gaussian, covariance: Tensor) -> Tensor:
    product = real.factor @ covariance @ real.factor.T
    return (product + product.T) / 2


def _influence(rows: Tensor, mean: Tensor, shift: Tensor, root: Tensor, shard: Shard) -> Tensor:
    """Variance of the mean influence of rows (N, D), where the map to the other set is ``root rootᵀ``."""
    sums = torch.zeros(2, dtype=torch.float64, device=rows.device)
    for part in tiles(shard.rows(len(rows)), _ROWS):
        centred = rows[part].double() - mean
        influence = 2 * centred @ shift + centred.square().sum(dim=1) - (centred @ root).square().sum(dim=1)
        sums[0] += influence.sum()
        sums[1] += influence.square().sum()
    total, squares = shard.total(sums)
    count = len(rows)
    variance: Tensor = (squares / count - (total / count).square()).clamp(min=0) / (count - 1)
    return variance


def _centred_factor(features: Tensor, mean: Tensor, ddof: int) -> Tensor:
    return (features.double() - mean) / sqrt(features.shape[0] - ddof)


class FittedRows(NamedTuple):
    """Features (N, D) and the Gaussian that fits them."""

    rows: Tensor
    gaussian: Gaussian


class FrechetDistance(Metric):
    """Fréchet distance; see the function ``frechet_distance``."""

    family = "fid"
    direction = "min"
    floor: Literal["all", "same number"] | None = "same number"
    more_rows_than_columns = True
    ddof: ClassVar[int] = 1

    def prepare(self, real: Tensor) -> FittedRows:
        """Fit the reference."""
        return FittedRows(real, fit_gaussian(real, self.runtime.shard, ddof=self.ddof))

    def score(self, state: FittedRows, fake: Tensor) -> Score:
        """The distance and its standard error."""
        return Score(*distance_with_error(state.gaussian, state.rows, fake, self.runtime.shard, ddof=self.ddof))


class Fid50k(FrechetDistance):
    """StyleGAN's ``fid50k``: 50,000 generated and at most as many real images, covariances divided by N."""

    family = "fid50k"
    floor = None
    ddof = 0
    published = Published(50_000, max_real=50_000)


class Fid50kFull(Fid50k):
    """StyleGAN's ``fid50k_full``: 50,000 generated images against all real ones, covariances divided by N."""

    family = "fid50k_full"
    published = Published(50_000)
