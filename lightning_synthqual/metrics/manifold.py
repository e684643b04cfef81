"""Precision, recall, density and coverage: who lies inside the other set's manifold of k-nearest-neighbour balls."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score, Scores
from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.neighbors import Limit, near, squared_radii, squared_radii_for
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.shard import MEMORY, Shard
from lightning_synthqual.metrics.sharing import Shared
from lightning_synthqual.metrics.views import Runtime
from lightning_synthqual.metrics.wording import Wording

_Self = TypeVar("_Self", bound="PrecisionRecallMetric")

_COMMON = 1.5  # what the draw of the real rows adds to the variance of a density, by simulation
_OTHER = 0.5  # what the draw of the other set adds to the variance, see ``neighbor_parts``


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
    limits = [Limit(real_radii[None]), Limit(fake_radii[:, None])]
    of_real, of_fake = count_pairs(fake, real, limits, shard=shard, memory=memory)
    return of_real[0] > 0, of_fake[1] > 0


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
    return count_pairs(fake, real, [Limit(real_radii[None], strict=True)], shard=shard, memory=memory)[0]


def count_pairs(
    x: Tensor, y: Tensor, limits: Sequence[Limit], *, shard: Shard | None = None, memory: int = MEMORY
) -> list[tuple[Tensor, Tensor]]:
    """For each limit of distances how many rows of the other set are within it: of each of ``x`` (N,), of ``y`` (M,).

    Args:
        x: Features (N, D).
        y: Features (M, D).
        limits: Limits of squared distances; all of them take one pass over the pairs.
        shard: This process's shard of the rows of ``x``.
        memory: Bytes that the tiles may take.
    """
    shard = shard or Shard()
    counts = torch.zeros(len(limits), len(x) + len(y), dtype=torch.float64, device=x.device)
    for i, j, inside in near(x, y, limits, shard=shard, memory=memory):
        for row, each in zip(counts, inside.double(), strict=True):
            row.scatter_add_(0, i, each).scatter_add_(0, len(x) + j, each)
    return [(row[: len(x)], row[len(x) :]) for row in shard.total(counts)]


def neighbor_parts(name: str, own: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """What each row adds to the mean of ``own``, of the rows themselves and of the rows that they are compared with.

    A row adds what it differs from the mean: exactly, where it has no part in balls. A row of the other set adds the
    more the more rows its ball holds (for coverage the more balls it is in). How much these add together was found by
    simulation: half as much variance as their share of the pairs has (density), half of that of the rows themselves
    (precision, recall, coverage). Leaving one row out does not tell: that variance is 2 to 10 times too large, as the
    balls of neighbours leap.

    Args:
        name: Name of the value.
        own: Contribution of each row (n,) to the mean, float64.
        counts: Of the other set, numbers of rows in the balls of its rows, or of balls that they are in (m,).

    Returns:
        Influences (n,) and (m,), mean zero.
    """
    other = counts - counts.mean()
    if name == "density":
        return own - own.mean(), other * (own.mean() / counts.mean().clamp(min=1e-12) * _OTHER**0.5)
    # Balls for coverage hold k / N of the generated rows: fewer of these than N are no worse.
    share = _OTHER * (min(1.0, len(counts) / len(own)) if name == "coverage" else 1.0)
    spread = other.var()
    return own - own.mean(), other * (share * own.var() / spread).sqrt() if spread > 0 else torch.zeros_like(other)


class RowsAndRadii(NamedTuple):
    """Features (N, D), and the squared radii of their balls (N,) by the number of the neighbour."""

    rows: Tensor
    radii: Mapping[int, Tensor]


_Counts = Mapping[str, tuple[Tensor, Tensor]]  # of rows within each limit, of generated and of real rows


class _Manifolds:
    """What precision, recall, density and coverage of one extractor share: a search of neighbours, a pass over pairs.

    Attributes:
        ks: Number of the neighbour by the family of each metric that takes part.
    """

    def __init__(self) -> None:
        self.ks: dict[str, int] = {}
        self._radii: Shared[dict[int, Tensor]] = Shared()
        self._counts: Shared[_Counts] = Shared()

    def radii(self, family: str, real: Tensor, shard: Shard) -> dict[int, Tensor]:
        """The squared radii of real balls, those that the other metrics need included."""
        able = {each: k for each, k in self.ks.items() if each == family or k < len(real)}
        ks = sorted(set(able.values()))
        return self._radii.take(
            family, able, (real,), lambda: dict(zip(ks, squared_radii_for(real, ks, shard), strict=True))
        )

    def counts(self, family: str, state: RowsAndRadii, fake: Tensor, shard: Shard) -> _Counts:
        """The pairs within the limits of this metric and of the others."""
        able = [each for each, k in self.ks.items() if each == family or (k in state.radii and k < len(fake))]
        return self._counts.take(family, able, (state.rows, fake), lambda: self._count(able, state, fake, shard))

    def _count(self, families: list[str], state: RowsAndRadii, fake: Tensor, shard: Shard) -> _Counts:
        limits = {}
        if "density" in families:
            limits["density"] = Limit(state.radii[self.ks["density"]][None], strict=True)
        if "precision" in families:
            fake_radii = squared_radii(fake, self.ks["precision"], shard)
            limits["precision"] = Limit(state.radii[self.ks["precision"]][None])
            limits["recall"] = Limit(fake_radii[:, None])
        return dict(zip(limits, count_pairs(fake, state.rows, list(limits.values()), shard=shard), strict=True))


class PrecisionRecallMetric(Metric):
    """Precision and recall; see the function ``precision_recall``."""

    family = "precision"
    direction = "max"
    floor: Literal["all", "same number"] | None = "same number"
    wordings: ClassVar[Mapping[str, Wording]] = MappingProxyType(
        {
            "precision": Wording("many generated images are unlike any real image"),
            "recall": Wording("much of the variety of the real images is missing"),
        }
    )
    OPTIONS: ClassVar[Options] = {"k": option(3, low=1)}

    def min_images(self) -> int:
        """One more than the neighbours."""
        return int(self.options["k"]) + 1

    def with_runtime(self: _Self, runtime: Runtime) -> _Self:
        """A copy that works with ``runtime``, and shares there what it has in common with others."""
        bound = super().with_runtime(runtime)
        bound._manifolds()
        return bound

    def prepare(self, real: Tensor) -> RowsAndRadii:
        """The radii of the reference."""
        return RowsAndRadii(real, self._manifolds().radii(self.family, real, self.runtime.shard))

    def score(self, state: RowsAndRadii, fake: Tensor) -> Scores:
        """Both shares."""
        found = self._manifolds().counts(self.family, state, fake, self.runtime.shard)
        (by_fake, in_real_balls), (in_fake_balls, by_real) = found["precision"], found["recall"]
        precision = _of_generated("precision", (by_fake > 0).double(), in_real_balls)
        return Scores({"precision": precision, "recall": _of_real("recall", (by_real > 0).double(), in_fake_balls)})

    def _manifolds(self) -> _Manifolds:
        """What it shares, in which it takes part from its first call on."""
        shared: _Manifolds = self.runtime.shared.setdefault((_Manifolds, self.extractor, self.output), _Manifolds())
        shared.ks[self.family] = self.options["k"]
        return shared


class DensityCoverageMetric(PrecisionRecallMetric):
    """Density and coverage; see the function ``density_coverage``."""

    family = "density"
    wordings: ClassVar[Mapping[str, Wording]] = MappingProxyType(
        {
            "density": Wording("generated images lie where real images are rare"),
            "coverage": Wording("many real images have no similar generated image"),
        }
    )
    OPTIONS: ClassVar[Options] = {"k": option(5, low=1)}

    def score(self, state: RowsAndRadii, fake: Tensor) -> Scores:
        """Both means."""
        by_fake, by_real = self._manifolds().counts(self.family, state, fake, self.runtime.shard)["density"]
        density = _of_generated("density", by_fake / self.options["k"], by_real)
        # The draw of the real rows moves all counts together, which is common to generators that are compared.
        std = ((1 / len(fake) + _COMMON / len(state.rows)) * by_fake.var()).sqrt() / self.options["k"]
        density = Score(density.value, std, density.influence)
        return Scores({"density": density, "coverage": _of_real("coverage", (by_real > 0).double(), by_fake)})


def _of_generated(name: str, rows: Tensor, counts: Tensor) -> Score:
    """The mean of contributions of generated rows, compared with the balls of real ones."""
    fake, real = neighbor_parts(name, rows, counts)
    return Score(rows.mean(), influence=Influence(rows.mean(), fake, real))


def _of_real(name: str, rows: Tensor, counts: Tensor) -> Score:
    """The mean of contributions of real rows, compared with generated ones."""
    real, fake = neighbor_parts(name, rows, counts)
    return Score(rows.mean(), influence=Influence(rows.mean(), fake, real))
