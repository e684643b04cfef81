"""Precision, recall, density and coverage: who lies inside the other set's manifold of k-nearest-neighbour balls."""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Metric, Score, Scores
from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.neighbors import squared_radii, within
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.shard import MEMORY, Shard


class PrecisionRecall(NamedTuple):
    """Improved precision and recall, float64 scalars in [0, 1]; see the function ``precision_recall``.

    Attributes:
        precision: Share of generated rows within the manifold of the real ones.
        recall: Share of real rows within the manifold of the generated ones.

    Example:
        >>> import torch
        >>> rows = torch.randn(50, 4)
        >>> [value.item() for value in precision_recall(rows, rows)]
        [1.0, 1.0]
    """

    precision: Tensor
    recall: Tensor


class DensityCoverage(NamedTuple):
    """Density and coverage, float64 scalars; see the function ``density_coverage``.

    Attributes:
        density: Density of real rows around generated ones: at least 0, 1 for equal distributions, unbounded.
        coverage: Share of real rows with a generated one nearby, in [0, 1].

    Example:
        >>> import torch
        >>> rows = torch.randn(50, 4)
        >>> density_coverage(rows, rows).coverage.item()
        1.0
    """

    density: Tensor
    coverage: Tensor


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3, memory: int = MEMORY) -> PrecisionRecall:
    """Improved precision and recall of Kynkäänniemi et al. 2019 (arXiv:1904.06991); higher is better.

    Precision is the share of fake rows that lie within the ball of some real row (radius: distance to its k-th
    nearest other real row, the border included), recall the same with the roles exchanged. Agrees with torch-fidelity
    and StyleGAN's formula. Precision does not see missing modes, recall does not see bad images.

    Args:
        real: Features (N, D), N > k, any floating dtype, any device.
        fake: Features (M, D), M > k.
        k: Number of the neighbour whose distance is the radius.
        memory: Bytes that the tiles of the computation may take.

    Returns:
        ``precision`` and ``recall``.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: If the features are not floating point, a set has at most ``k`` rows or contains NaN or infinity, or
            the dimensions differ.

    Example:
        >>> import torch
        >>> real = torch.arange(6.0)[:, None]
        >>> [value.item() for value in precision_recall(real, real[:4] + 0.25, k=1)]
        [1.0, 0.8333333333333334]
    """
    real, fake = check_pair(real, fake)
    real_radii, fake_radii = (squared_radii(rows, k, memory=memory) for rows in (real, fake))
    fake_inside, real_inside = manifold_membership(real, real_radii, fake, fake_radii, memory=memory)
    return PrecisionRecall(fake_inside.double().mean(), real_inside.double().mean())


def density_coverage(real: Tensor, fake: Tensor, *, k: int = 5, memory: int = MEMORY) -> DensityCoverage:
    """Density and coverage of Naeem et al. 2020 (arXiv:2002.09797); higher is better.

    Density is the mean number of real rows' balls (radius: distance to the k-th nearest other real row, the border
    left out) that contain a fake row, divided by k; coverage the share of real rows whose ball contains a fake row.
    Agrees with prdc. Density exceeds 1 where fake rows crowd into dense regions; coverage does not see bad images.

    Args:
        real: Features (N, D), N > k, any floating dtype, any device.
        fake: Features (M, D), M >= 2.
        k: Number of the neighbour whose distance is the radius.
        memory: Bytes that the tiles of the computation may take.

    Returns:
        ``density`` and ``coverage``.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: If the features are not floating point, ``real`` has at most ``k`` rows, a set contains NaN or
            infinity, or the dimensions differ.

    Example:
        >>> import torch
        >>> real = torch.arange(6.0)[:, None]
        >>> [value.item() for value in density_coverage(real, real[:3] + 0.25, k=2)]
        [1.1666666666666667, 0.6666666666666666]
    """
    real, fake = check_pair(real, fake)
    by_fake, by_real = ball_counts(real, squared_radii(real, k, memory=memory), fake, memory=memory)
    return DensityCoverage(by_fake.mean() / k, (by_real > 0).double().mean())


def manifold_membership(
    real: Tensor,
    real_radii: Tensor,
    fake: Tensor,
    fake_radii: Tensor,
    *,
    shard: Shard | None = None,
    memory: int = MEMORY,
) -> tuple[Tensor, Tensor]:
    """Which fake rows (M,) lie in a ball of a real row, and which real rows (N,) in one of a fake row.

    Args:
        real: Features (N, D).
        real_radii: Squared radii (N,).
        fake: Features (M, D).
        fake_radii: Squared radii (M,).
        shard: This process's shard of the fake rows.
        memory: Bytes that the tiles may take.
    """
    shard = shard or Shard()
    hits = torch.zeros(len(fake) + len(real), dtype=torch.float64, device=real.device)
    limits = (real_radii[None], fake_radii[:, None])
    for of_fake, of_real in within(fake, real, limits, shard=shard, memory=memory):
        hits[of_fake[0]] = 1
        hits[len(fake) + of_real[1]] = 1
    hits = shard.total(hits) > 0
    return hits[: len(fake)], hits[len(fake) :]


def ball_counts(
    real: Tensor, real_radii: Tensor, fake: Tensor, *, shard: Shard | None = None, memory: int = MEMORY
) -> tuple[Tensor, Tensor]:
    """How many real rows' balls each fake row is in (M,), and how many fake rows are in each real row's ball (N,).

    Args:
        real: Features (N, D).
        real_radii: Squared radii (N,).
        fake: Features (M, D).
        shard: This process's shard of the fake rows.
        memory: Bytes that the tiles may take.
    """
    shard = shard or Shard()
    counts = torch.zeros(len(fake) + len(real), dtype=torch.float64, device=real.device)
    for ((i, j),) in within(fake, real, (real_radii[None],), strict=True, shard=shard, memory=memory):
        counts[: len(fake)] += i.bincount(minlength=len(fake))
        counts[len(fake) :] += j.bincount(minlength=len(real))
    counts = shard.total(counts)
    return counts[: len(fake)], counts[len(fake) :]


def both_sets_error(rows: Tensor, real: int, fake: int) -> Tensor:
    """Standard error of the mean of ``rows`` over draws of both sets.

    The rows vary by sampling, and so do the balls that they are compared with. The variance of a row, which for rows of
    0 and 1 is the binomial one, is used for both: the result is 0.7 to 2.3 times the spread over draws.

    Args:
        rows: Contribution of each row to the mean.
        real: Number of real rows.
        fake: Number of fake rows.
    """
    return (rows.double().var(correction=0) * (1 / real + 1 / fake)).sqrt()


class RowsAndRadii(NamedTuple):
    """Features (N, D) and the squared radii of their balls (N,)."""

    rows: Tensor
    radii: Tensor


class PrecisionRecallMetric(Metric):
    """Precision and recall; see the function ``precision_recall``."""

    family = "precision"
    direction = "max"
    OPTIONS: ClassVar[Options] = {"k": option(3, low=1)}

    def min_images(self) -> int:
        """One more than the neighbours."""
        return int(self.options["k"]) + 1

    def prepare(self, real: Tensor) -> RowsAndRadii:
        """The radii of the reference."""
        return RowsAndRadii(real, squared_radii(real, self.options["k"], self.runtime.shard))

    def score(self, state: RowsAndRadii, fake: Tensor) -> Scores:
        """Both shares."""
        shard = self.runtime.shard
        fake_radii = squared_radii(fake, self.options["k"], shard)
        fake_inside, real_inside = manifold_membership(state.rows, state.radii, fake, fake_radii, shard=shard)
        return _means({"precision": fake_inside.double(), "recall": real_inside.double()}, len(state.rows), len(fake))


class DensityCoverageMetric(PrecisionRecallMetric):
    """Density and coverage; see the function ``density_coverage``."""

    family = "density"
    OPTIONS: ClassVar[Options] = {"k": option(5, low=1)}

    def score(self, state: RowsAndRadii, fake: Tensor) -> Scores:
        """Both means."""
        by_fake, by_real = ball_counts(state.rows, state.radii, fake, shard=self.runtime.shard)
        rows = {"density": by_fake / self.options["k"], "coverage": (by_real > 0).double()}
        return _means(rows, len(state.rows), len(fake))


def _means(rows: dict[str, Tensor], real: int, fake: int) -> Scores:
    return Scores({name: Score(row.mean(), both_sets_error(row, real, fake)) for name, row in rows.items()})
