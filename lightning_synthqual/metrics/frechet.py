"""Fréchet distance between Gaussian fits of two feature sets."""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score
from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.published import Published
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


def frechet_influence(real: Tensor, fake: Tensor) -> Influence:
    """What each row adds to the Fréchet distance of two feature sets, to first order.

    With the optimal map T from its own Gaussian to the other one, a row z off its own mean adds
    ``2 z·(mean - other mean) + zᵀ (1 - T) z`` up to a constant, after the derivative of the distance by mean and
    covariance. The standard error ``std`` of what is returned counts the noise of the estimated maps a second time,
    which an evaluation takes off: the closer the distributions are, the more too large it is.

    Args:
        real: Features (N, D), any floating dtype, any device.
        fake: Features (M, D).

    Returns:
        The distance, and the influences of the generated (M,) and of the real rows (N,); float64.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: As ``frechet_distance`` raises it.

    Example:
        >>> import torch
        >>> found = frechet_influence(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[2.0], [3.0], [4.0]]))
        >>> found.value.item(), found.fake.tolist()
        (4.0, [-4.0, 0.0, 4.0])
    """
    real, fake = check_pair(real, fake)
    return distance_with_error(fit_gaussian(real), real, fake)[0]


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
) -> tuple[Influence, Tensor]:
    """The distance with the influences of all rows, and its standard error over draws of both sets.

    All influences follow from the one decomposition that gives the distance; see ``frechet_influence``. Their spread
    counts the noise of what is estimated in them a second time, so that from the error the variance of the distance's
    second order, as it is for Gaussians, is taken off: where the distributions are equal it is all there is.

    Args:
        real: The fit of ``real_rows``.
        real_rows: Features (N, D).
        fake: Features (M, D).
        shard: This process's shard of the rows.
        ddof: Number subtracted from the number of rows.
    """
    found = _coupled(real, fake, shard or Shard(), ddof)
    rows = _influences(real, real_rows, fake, found, shard or Shard())
    influence = Influence(_distance(real, found.mean, found.trace, found.roots), *rows)
    first_order = influence.std.square()
    corrected = first_order - _second_order(real, found, len(real_rows), len(fake))
    return influence, torch.maximum(corrected, first_order / 2).sqrt()


class _Coupling(NamedTuple):
    """How a generated set lies to a fit.

    ``roots`` (k,) and ``vectors`` (r, k): square roots of the eigenvalues of the product of both covariances, and its
    eigenvectors, one a column; ``mean`` (D,) of the set; ``trace`` and ``squares``, their sum, of its covariance.
    """

    roots: Tensor
    vectors: Tensor
    mean: Tensor
    trace: Tensor
    squares: Tensor


def _coupled(real: Gaussian, fake: Tensor, shard: Shard, ddof: int) -> _Coupling:
    if fake.shape[0] <= fake.shape[1]:
        mean = fake.double().mean(dim=0)
        factor = _centred_factor(fake, mean, ddof)
        vectors, roots, _ = torch.linalg.svd(real.factor @ factor.T, full_matrices=False)
        trace, squares = factor.square().sum(), (factor @ factor.T).square().sum()
    else:
        mean, covariance = moments(fake, shard, ddof=ddof)
        values, vectors = torch.linalg.eigh(_product(real, covariance))
        roots = values.clamp(min=0).sqrt()
        trace, squares = covariance.trace(), covariance.square().sum()
    kept = roots > torch.finfo(roots.dtype).eps * roots.sum()
    return _Coupling(roots[kept], vectors[:, kept], mean, trace, squares)


def _influences(
    real: Gaussian, real_rows: Tensor, fake: Tensor, found: _Coupling, shard: Shard
) -> tuple[Tensor, Tensor]:
    """Influences of the generated and of the real rows, in one sum over the processes."""
    to_real = real.factor.T @ (found.vectors / found.roots.sqrt())
    to_fake = (real.factor / real.factor.square().sum(dim=1, keepdim=True)).T @ (found.vectors * found.roots.sqrt())
    shift = found.mean - real.mean
    values = torch.zeros(len(fake) + len(real_rows), dtype=torch.float64, device=fake.device)
    parts = values.split([len(fake), len(real_rows)])
    _fill(parts[0], fake, found.mean, shift, to_real, shard)
    _fill(parts[1], real_rows, real.mean, -shift, to_fake, shard)
    fake_part, real_part = shard.total(values).split([len(fake), len(real_rows)])
    return fake_part - fake_part.mean(), real_part - real_part.mean()


def _fill(values: Tensor, rows: Tensor, mean: Tensor, shift: Tensor, root: Tensor, shard: Shard) -> None:
    """Set the values (N,), up to a constant, for this process's rows; the map to the other set is ``root rootᵀ``."""
    for part in tiles(shard.rows(len(rows)), _ROWS):
        centred = rows[part].double() - mean
        values[part] = 2 * centred @ shift + centred.square().sum(dim=1) - (centred @ root).square().sum(dim=1)


def _second_order(real: Gaussian, found: _Coupling, n: int, m: int) -> Tensor:
    """Variance of the part of the distance that is of second order in the estimates, for Gaussians."""
    roots = found.roots
    pairs = roots[:, None] * roots / (roots[:, None] + roots)
    of_covariances = (1 / n + 1 / m) ** 2 * (pairs.square().sum() + pairs.diagonal().square().sum())
    of_means = 2 * found.squares / m**2 + 2 * real.factor.square().sum(dim=1).square().sum() / n**2
    variance: Tensor = of_covariances + of_means + 4 * roots.square().sum() / (n * m)
    return variance


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
        """The distance, its standard error and the influence of each row."""
        shard = self.runtime.shard
        influence, std = distance_with_error(state.gaussian, state.rows, fake, shard, ddof=self.ddof)
        return Score(influence.value, std, influence)


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
