"""Does a generator invent or copy? Nearest neighbours in training and in held-out data, and what is normal for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Influence, Metric, Score, Scores
from lightning_synthqual.metrics.clusters import Parts, mean_parts, median_parts
from lightning_synthqual.metrics.copies import copies_table, is_copy, nearest_to_training
from lightning_synthqual.metrics.copying import CellDistances, Partition, WithinTraining, copying_statistic
from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.figures import Figure, Histograms
from lightning_synthqual.metrics.neighbors import Distance, Neighbors, search
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.shard import MEMORY, Shard
from lightning_synthqual.metrics.views import Generated, RealSets
from lightning_synthqual.metrics.wording import Wording

_OF_HELD_OUT = ("copy_fraction_held_out", "authenticity_held_out", "null_distance")  # no generated row takes part


class Memorization(NamedTuple):
    """What nearest neighbours say of copying; float64 scalars, NaN where one is undefined.

    ``closer_to_train``: share of generated rows that are nearer to training than to held-out rows, ties counted half;
    0.5 is no preference. ``copy_fraction``: share whose nearest training row is nearer than a third of the second
    nearest one, with its value for held-out rows, and ``copy_excess``, the former minus the latter: above 0 by more
    than its error the generator copies. ``train_distance``, ``held_out_distance``: median distance to the
    nearest training, held-out row; ``null_distance``: that of held-out to training rows; each with its quantiles at
    1 % (``_q01``) and 5 % (``_q05``). ``train_held_out_ratio``: the ratio of the first two medians.
    ``authenticity``: see the function of that name, with its value for held-out rows. ``copying_test``: C_T, see
    ``data_copying_test``.

    Example:
        >>> import torch
        >>> train, held_out = torch.randn(2, 200, 8, generator=torch.Generator().manual_seed(0))
        >>> found = memorization(train, held_out, train[:50])
        >>> found.closer_to_train.item(), found.copy_fraction.item(), found.train_distance.item()
        (1.0, 1.0, 0.0)
    """

    closer_to_train: Tensor
    copy_fraction: Tensor
    copy_fraction_held_out: Tensor
    copy_excess: Tensor
    train_distance: Tensor
    train_distance_q01: Tensor
    train_distance_q05: Tensor
    held_out_distance: Tensor
    held_out_distance_q01: Tensor
    held_out_distance_q05: Tensor
    null_distance: Tensor
    null_distance_q01: Tensor
    null_distance_q05: Tensor
    train_held_out_ratio: Tensor
    authenticity: Tensor
    authenticity_held_out: Tensor
    copying_test: Tensor


class Comparison(NamedTuple):
    """The neighbours of each generated row, and the scalars.

    Args:
        scalars: Values as ``Memorization`` names them.
        influences: What each row adds, by the same names; ``real`` is of the training rows, then the held-out rows.
            Missing for ``copying_test``; for quantiles below the median, where the share of copies makes the density
            leap; and where all rows have the same neighbour.
        train: The two nearest of all training rows, with distances.
        held_out: The nearest of all held-out rows.
        distances: Distances to nearest rows where the real sets are of equal size: of generated rows to training and
            to held-out rows (M,), and of held-out to training rows (n,), by the names of their medians.
    """

    scalars: Memorization
    influences: dict[str, Influence]
    train: Neighbors
    held_out: Neighbors
    distances: dict[str, Tensor]


def memorization(
    train: Tensor, held_out: Tensor, fake: Tensor, *, distance: Distance = "cosine", seed: int = 0, memory: int = MEMORY
) -> Memorization:
    """Compare the generated rows' nearest neighbours in training data with those in held-out data.

    What compares the two sets (``closer_to_train``, distances, their ratio, ``copying_test``) takes equally many rows
    of both, the larger one subsampled; ``copy_fraction`` and ``authenticity`` search all training rows, because a
    copy could be of one that the subsample leaves out. Near-duplicates across the split of training and held-out data
    make all of it meaningless: split by scene, not at random. ``copy_fraction`` does not see copies of images that the
    training data hold several nearly equal versions of; ``authenticity`` and ``copying_test`` mistake a generator that
    shrinks towards the centre for one that copies (Stein et al. 2023, arXiv:2306.04675).

    Args:
        train: Features (N, D) of what the generator was trained on, any floating dtype, any device.
        held_out: Features (H, D) of real data it was not trained on.
        fake: Features (M, D).
        distance: ``"cosine"`` for 1 - cosine, or ``"euclidean"``.
        seed: Random seed of the subsample and of the cells of C_T.
        memory: Bytes that the tiles of the computation may take.

    Returns:
        The scalars; ``copying_test`` is NaN if no cell has more than 20 generated rows, or one has no held-out rows.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: If the features are not floating point, a set has fewer than 2 rows or contains NaN or infinity, the
            dimensions differ, or a row has no direction (cosine).

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> train, held_out = torch.randn(2, 100, 16, generator=draw)
        >>> found = memorization(train, held_out, train[:50])
        >>> found.copy_fraction.item(), found.closer_to_train.item(), found.authenticity.item()
        (1.0, 1.0, 0.0)
    """
    train, held_out = check_pair(train, held_out, ("train", "held_out"))
    train, fake = check_pair(train, fake, ("train", "fake"))
    baseline = RealNeighbors(train, held_out, distance, min(3, len(train), len(held_out)), seed, memory=memory)
    return baseline.compare(fake).scalars


@dataclass(frozen=True)
class _Equal:
    """Equally many training and held-out rows, and which of all they are."""

    train: Tensor
    held_out: Tensor
    train_places: Tensor
    held_out_places: Tensor


class _Matched(NamedTuple):
    """Values of rows, and the real row that each depends on, by its place among training and then held-out rows."""

    values: Tensor
    real: Tensor


class RealNeighbors:
    """What depends on the real sets alone, and the comparison of generated rows with it.

    Args:
        train: Features (N, D).
        held_out: Features (H, D).
        distance: ``"cosine"`` or ``"euclidean"``.
        cells: Number of cells of C_T.
        seed: Random seed of the subsample and of the cells.
        shard: This process's shard of the rows.
        memory: Bytes that the tiles may take.
    """

    def __init__(
        self,
        train: Tensor,
        held_out: Tensor,
        distance: Distance,
        cells: int,
        seed: int,
        shard: Shard | None = None,
        memory: int = MEMORY,
    ) -> None:
        if distance not in ("euclidean", "cosine"):
            raise ValueError(f"`distance` must be 'euclidean' or 'cosine', but got {distance!r}.")
        self.train, self.held_out = train, held_out
        self.unit = distance == "cosine"
        self.shard, self.memory = shard, memory
        count = min(len(train), len(held_out))
        places = _choose(train, count, seed), _choose(held_out, count, seed)
        self.equal = _Equal(_taken(train, places[0]), _taken(held_out, places[1]), *places)
        self.within = WithinTraining(train, unit=self.unit, shard=shard, memory=memory)
        self.nearest = self._search(held_out, train, k=2)
        alike = len(held_out) == len(train)
        null = self.nearest if alike else self._search(self.equal.held_out, self.equal.train)
        null_places = null.indices[:, 0] if alike else self.equal.train_places[null.indices[:, 0]]
        self.null = _Matched(self._distance(null.distances[:, 0]), null_places)
        self.partition = Partition(self.equal.train, cells, seed, unit=self.unit, shard=shard)
        self.in_cells: CellDistances = self.partition.distances(self.equal.held_out, memory)

    def compare(self, fake: Tensor) -> Comparison:
        """Compare generated rows (M, D)."""
        in_train = self._search(fake, self.train, k=2)
        in_held_out = self._search(fake, self.held_out)
        near, far = self._equal_neighbors(fake, in_train, in_held_out)
        distances = {
            "train_distance": _Matched(self._distance(near.values), near.real),
            "held_out_distance": _Matched(self._distance(far.values), far.real),
            "null_distance": self.null,
        }
        of_fake, of_held_out = self._shares(in_train), self._shares(self.nearest)
        means = {"closer_to_train": _closer(near, far), **of_fake}
        means |= {f"{name}_held_out": share for name, share in of_held_out.items()}
        medians = {name: each.values.quantile(0.5) for name, each in distances.items()}
        values = {name: share.values.mean() for name, share in means.items()}
        values |= medians | {
            name + suffix: each.values.quantile(q)
            for name, each in distances.items()
            for suffix, q in (("_q01", 0.01), ("_q05", 0.05))
        }
        scalars = Memorization(
            **values,
            copy_excess=values["copy_fraction"] - values["copy_fraction_held_out"],
            train_held_out_ratio=values["train_distance"] / values["held_out_distance"],
            copying_test=self._copying_test(fake),
        )
        rows = len(self.train) + len(self.held_out)
        parts = {name: mean_parts(*each, rows) for name, each in means.items()}
        parts |= {name: median_parts(*each, rows) for name, each in distances.items()}
        found = [Neighbors(self._distance(each.distances), each.indices) for each in (in_train, in_held_out)]
        shown = {name: each.values for name, each in distances.items()}
        return Comparison(scalars, self._influences(scalars, parts, len(fake)), found[0], found[1], shown)

    def _equal_neighbors(self, fake: Tensor, in_train: Neighbors, in_held_out: Neighbors) -> tuple[_Matched, _Matched]:
        """Squared distances to the nearest rows of equally many training and held-out rows, and which they are."""
        equal = self.equal
        near = in_train if len(equal.train) == len(self.train) else self._search(fake, equal.train)
        far = in_held_out if len(equal.held_out) == len(self.held_out) else self._search(fake, equal.held_out)
        places = equal.train_places[near.indices[:, 0]], equal.held_out_places[far.indices[:, 0]] + len(self.train)
        return _Matched(near.distances[:, 0], places[0]), _Matched(far.distances[:, 0], places[1])

    def _shares(self, nearest: Neighbors) -> dict[str, _Matched]:
        """Which rows are copies and which are authentic, by their two nearest training rows."""
        rows = {"copy_fraction": self._copies(nearest), "authenticity": self.within.authentic(nearest)}
        return {name: _Matched(each, nearest.indices[:, 0]) for name, each in rows.items()}

    def _influences(self, scalars: Memorization, parts: dict[str, Parts | None], fake: int) -> dict[str, Influence]:
        """What rows add to the values, by name: to those with known parts, and to what is computed from them."""
        found = {
            name: self._influence(getattr(scalars, name), each, fake, name in _OF_HELD_OUT)
            for name, each in parts.items()
            if each is not None
        }
        _combine(found, "copy_excess", scalars, {"copy_fraction": 1.0, "copy_fraction_held_out": -1.0})
        ratio, by = float(scalars.train_held_out_ratio), float(scalars.held_out_distance)
        if by > 0:
            _combine(
                found, "train_held_out_ratio", scalars, {"train_distance": 1 / by, "held_out_distance": -ratio / by}
            )
        return found

    def _influence(self, value: Tensor, parts: Parts, fake: int, of_held_out: bool) -> Influence:
        """The parts as influences of generated and of real rows; those of a value of held-out rows are all real."""
        if not of_held_out:
            return Influence(value, parts.own, parts.real)
        # Of a mean over some of N rows one of them adds N times its share.
        places = self.equal.held_out_places if len(parts.own) < len(self.held_out) else slice(None)
        real = parts.real.clone()
        real[len(self.train) :][places] += parts.own * (len(real) / len(parts.own))
        return Influence(value, real.new_zeros(fake), real)

    def _copies(self, found: Neighbors) -> Tensor:
        """Which rows are copies by their two nearest training rows: 1 or 0, float64."""
        first, second = self._distance(found.distances[:, 0]), self._distance(found.distances[:, -1])
        return is_copy(first, second).double()

    def _copying_test(self, fake: Tensor) -> Tensor:
        in_cells = self.partition.distances(fake, self.memory)
        try:
            return copying_statistic(self.in_cells, in_cells)
        except ValueError:  # too few rows for this one figure, not for the others
            return fake.new_full((), torch.nan, dtype=torch.float64)

    def _search(self, queries: Tensor, references: Tensor, k: int = 1) -> Neighbors:
        return search(queries, references, k, unit=self.unit, shard=self.shard, memory=self.memory)

    def _distance(self, squared: Tensor) -> Tensor:
        return squared / 2 if self.unit else squared.sqrt()


def _closer(near: _Matched, far: _Matched) -> _Matched:
    """Which rows are nearer to training than to held-out rows: 1, 0, or 1/2 for a tie."""
    closer = (near.values < far.values).double() + 0.5 * (near.values == far.values).double()
    return _Matched(closer, torch.where(near.values < far.values, near.real, far.real))


def _combine(found: dict[str, Influence], name: str, scalars: Memorization, weights: dict[str, float]) -> None:
    """Add the influence on a value that is, to first order, a weighted sum of others, if theirs are known."""
    if all(each in found for each in weights):
        fake, real = (
            torch.stack([weight * getattr(found[each], part) for each, weight in weights.items()]).sum(dim=0)
            for part in ("fake", "real")
        )
        found[name] = Influence(getattr(scalars, name), fake, real)


def _choose(rows: Tensor, count: int, seed: int) -> Tensor:
    """The places of ``count`` of the rows, in order."""
    if count == len(rows):
        return torch.arange(count, device=rows.device)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])
    return torch.from_numpy(chosen).to(rows.device)


def _taken(rows: Tensor, places: Tensor) -> Tensor:
    return rows if len(places) == len(rows) else rows[places]


_DISTANCES = {
    "train_distance": "generated to training",
    "held_out_distance": "generated to held-out",
    "null_distance": "held-out to training",
}


class MemorizationMetric(Metric):
    """All that nearest neighbours say of copying; see the function ``memorization``."""

    family = "memorization"
    # The target of closer_to_train is 0.5, that of authenticity its value for held-out images.
    direction: Any = MappingProxyType({"copy_fraction": "min", "copy_excess": "min"})
    alarms: ClassVar[Mapping[str, float]] = MappingProxyType({"copy_excess": 0.0})
    wordings: ClassVar[Mapping[str, Wording]] = MappingProxyType(
        {
            "copy_excess": Wording(
                alarm="{copy_fraction:count} generated images look like copies of training images "
                "({copy_fraction:share}; held-out images: {copy_fraction_held_out:share}).",
                clear="No sign of copies: {copy_fraction:count} generated images look like copies of training images "
                "({copy_fraction:share}; held-out images: {copy_fraction_held_out:share}).",
            )
        }
    )
    both_sets = True
    generated_images = "all"
    OPTIONS: ClassVar[Options] = {
        "distance": option("cosine", choices=("cosine", "euclidean")),
        "cells": option(3, low=1),
        "seed": option(0, low=0, high=2**32 - 1),
        "shown": option(8, low=1),
    }

    def prepare_sets(self, real: RealSets) -> RealNeighbors:
        """The neighbours of held-out images, and the cells of training images."""
        assert real.train is not None
        assert real.held_out is not None
        train, held_out = self.rows(real.train), self.rows(real.held_out)
        cells = min(self.options["cells"], len(train), len(held_out))
        return RealNeighbors(train, held_out, self.options["distance"], cells, self.options["seed"], self.runtime.shard)

    def score_set(self, state: RealNeighbors, generated: Generated) -> Scores:
        """The scalars, the images nearest to training data, and the distributions of distances."""
        found = state.compare(self.rows(generated))
        influences = found.influences
        values = {name: Score(value, influence=influences.get(name)) for name, value in found.scalars._asdict().items()}
        sheet, table = nearest_to_training(found, self.options["shown"])
        names = {"cosine": "1 - cosine", "euclidean": "Euclidean"}[self.options["distance"]]
        histograms = Histograms(
            {_DISTANCES[name]: each.cpu().numpy() for name, each in found.distances.items()},
            f"distance to the nearest neighbour ({names}, {self.extractor})",
        )
        figures: dict[str, Figure] = {f"neighbors{self.suffix}": sheet, f"distances{self.suffix}": histograms}
        tables = {f"copies{self.suffix}": copies_table(found), f"neighbors{self.suffix}": table}
        return Scores(values, figures, tables)
