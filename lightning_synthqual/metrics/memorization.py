"""Does a generator invent or copy? Nearest neighbours in training and in held-out data, and what is normal for them."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_synthqual.metrics.base import Metric, Score, Scores
from lightning_synthqual.metrics.copying import CellDistances, Partition, WithinTraining, copying_statistic
from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.figures import Figure, Histograms, ImageRef, ImageSheet, SheetCell, SheetRow, Table
from lightning_synthqual.metrics.neighbors import Distance, Neighbors, search
from lightning_synthqual.metrics.options import Options, option
from lightning_synthqual.metrics.shard import MEMORY, Shard
from lightning_synthqual.metrics.views import Generated, RealSets

_COPY = 1 / 3  # of the distance to the second nearest training image


class Memorization(NamedTuple):
    """What nearest neighbours say of copying; float64 scalars, NaN where one is undefined.

    ``closer_to_train``: share of generated rows that are nearer to training than to held-out rows, ties counted half;
    0.5 is no preference. ``copy_fraction``: share whose nearest training row is nearer than a third of the second
    nearest one, with its value for held-out rows. ``train_distance``, ``held_out_distance``: median distance to the
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
        errors: Standard errors by the same names, where there are any.
        train: The two nearest of all training rows, with distances.
        held_out: The nearest of all held-out rows.
        distances: Distances to nearest rows where the real sets are of equal size: of generated rows to training and
            to held-out rows (M,), and of held-out to training rows (n,), by the names of their medians.
    """

    scalars: Memorization
    errors: dict[str, Tensor]
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
    """Equally many training and held-out rows."""

    train: Tensor
    held_out: Tensor


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
        self.equal = _Equal(_choose(train, count, seed), _choose(held_out, count, seed))
        self.within = WithinTraining(train, unit=self.unit, shard=shard, memory=memory)
        self.nearest = self._search(held_out, train, k=2)
        alike = len(held_out) == len(train)
        null = self.nearest if alike else self._search(self.equal.held_out, self.equal.train)
        self.null, self.null_indices = self._distance(null.distances[:, 0]), null.indices[:, 0]
        self.partition = Partition(self.equal.train, cells, seed, unit=self.unit, shard=shard)
        self.in_cells: CellDistances = self.partition.distances(self.equal.held_out, memory)

    def compare(self, fake: Tensor) -> Comparison:
        """Compare generated rows (M, D)."""
        in_train = self._search(fake, self.train, k=2)
        in_held_out = self._search(fake, self.held_out)
        copies = self._copies(in_train)
        original = self.within.authentic(in_train)
        near = in_train if len(self.equal.train) == len(self.train) else self._search(fake, self.equal.train)
        far = in_held_out if len(self.equal.held_out) == len(self.held_out) else self._search(fake, self.equal.held_out)
        to_train, to_held_out = near.distances[:, 0], far.distances[:, 0]
        closer = (to_train < to_held_out).double() + 0.5 * (to_train == to_held_out).double()
        winner = torch.where(to_train < to_held_out, near.indices[:, 0], len(self.train) + far.indices[:, 0])
        distances = {
            "train_distance": self._distance(to_train),
            "held_out_distance": self._distance(to_held_out),
            "null_distance": self.null,
        }
        means = {
            "closer_to_train": (closer, winner),
            "copy_fraction": (copies, in_train.indices[:, 0]),
            "copy_fraction_held_out": (self._copies(self.nearest), self.nearest.indices[:, 0]),
            "authenticity": (original, in_train.indices[:, 0]),
            "authenticity_held_out": (self.within.authentic(self.nearest), self.nearest.indices[:, 0]),
        }
        quantiles = {
            name + suffix: values.quantile(q)
            for name, values in distances.items()
            for suffix, q in (("", 0.5), ("_q01", 0.01), ("_q05", 0.05))
        }
        scalars = Memorization(
            **{name: values.mean() for name, (values, _) in means.items()},
            **quantiles,
            train_held_out_ratio=quantiles["train_distance"] / quantiles["held_out_distance"],
            copying_test=self._copying_test(fake),
        )
        errors = {name: clustered_error(*pair) for name, pair in means.items()}
        matched = (near.indices[:, 0], far.indices[:, 0], self.null_indices)
        for (name, values), clusters in zip(distances.items(), matched, strict=True):
            errors[name] = median_error(values, clusters)
        found = [Neighbors(self._distance(each.distances), each.indices) for each in (in_train, in_held_out)]
        return Comparison(scalars, errors, found[0], found[1], distances)

    def _copies(self, found: Neighbors) -> Tensor:
        """Which rows are copies by their two nearest training rows: 1 or 0, float64."""
        first, second = self._distance(found.distances[:, 0]), self._distance(found.distances[:, -1])
        # A copy of an image that is there twice has no distance to either.
        return ((first < _COPY * second) | (first == 0)).double()

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


def clustered_error(values: Tensor, clusters: Tensor) -> Tensor:
    """Standard error of the mean of values (M,) that depend on each other within clusters (M,).

    Generated rows with the same nearest real row share its luck. The clusters' effective number (n^2 over the sum of
    their squared sizes) takes the place of their number in the correction for few of them; NaN for a single one.
    """
    _, places, sizes = clusters.unique(return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        return values.new_full((), torch.nan)
    sums = values.new_zeros(len(sizes)).index_add_(0, places, values - values.mean())
    effective = len(values) ** 2 / sizes.double().square().sum()
    error: Tensor = sums.square().sum().sqrt() / len(values) * (effective / (effective - 1)).sqrt()
    return error


def median_error(values: Tensor, clusters: Tensor) -> Tensor:
    """Standard error of the median of values (M,) that depend on each other within clusters (M,).

    Half the distance between the order statistics that lie one standard error of the share below the median off. The
    clusters are the nearest real rows, whose luck the generated rows that they are nearest to have in common.
    """
    ordered = values.sort().values
    below = clustered_error((values <= ordered[(len(values) - 1) // 2]).double(), clusters)
    reach = len(values) * float(below) if below.isfinite() else len(values) ** 0.5 / 2
    middle = (len(values) - 1) / 2
    low, high = max(0, round(middle - reach)), min(len(values) - 1, round(middle + reach))
    return (ordered[high] - ordered[low]) / 2


def _choose(rows: Tensor, count: int, seed: int) -> Tensor:
    if count == len(rows):
        return rows
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])
    return rows[torch.from_numpy(chosen).to(rows.device)]


_TITLES = ("generated", "nearest training", "nearest held-out")
_DISTANCES = {
    "train_distance": "generated to training",
    "held_out_distance": "generated to held-out",
    "null_distance": "held-out to training",
}


class MemorizationMetric(Metric):
    """All that nearest neighbours say of copying; see the function ``memorization``."""

    family = "memorization"
    # The target of closer_to_train is 0.5, that of authenticity its value for held-out images.
    direction: Any = MappingProxyType({"copy_fraction": "min"})
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
        values = {name: Score(value, found.errors.get(name)) for name, value in found.scalars._asdict().items()}
        sheet, table = self._nearest_to_training(found)
        names = {"cosine": "1 - cosine", "euclidean": "Euclidean"}[self.options["distance"]]
        histograms = Histograms(
            {_DISTANCES[name]: each.cpu().numpy() for name, each in found.distances.items()},
            f"distance to the nearest neighbour ({names}, {self.extractor})",
        )
        figures: dict[str, Figure] = {f"neighbors{self.suffix}": sheet, f"distances{self.suffix}": histograms}
        return Scores(values, figures, {f"neighbors{self.suffix}": table})

    def _nearest_to_training(self, found: Comparison) -> tuple[ImageSheet, Table]:
        """The generated images that are nearest to training compared with held-out images, with both neighbours."""
        to_train, to_held_out = found.train.distances.cpu(), found.held_out.distances[:, 0].cpu()
        train_indices, held_out_indices = found.train.indices[:, 0].cpu(), found.held_out.indices[:, 0].cpu()
        nearness = to_train[:, 0] / to_held_out.clamp(min=1e-12)
        sheet, rows = [], []
        for index in nearness.argsort(stable=True)[: self.options["shown"]].tolist():
            train, held_out = int(train_indices[index]), int(held_out_indices[index])
            near, second, far = float(to_train[index, 0]), float(to_train[index, 1]), float(to_held_out[index])
            images = ImageRef("generated", index), ImageRef("real", train), ImageRef("held_out", held_out)
            texts = f"#{index}", f"#{train}: {near:.3g}", f"#{held_out}: {far:.3g}"
            sheet.append(
                SheetRow("", tuple(SheetCell((image,), text) for image, text in zip(images, texts, strict=True)))
            )
            rows.append((index, train, held_out, *images, near, second, far))
        columns = ("generated", "training", "held-out", *(f"{title} image" for title in _TITLES))
        distances = ("distance to training", "to second nearest training", "distance to held-out")
        return ImageSheet(tuple(sheet), _TITLES), Table((*columns, *distances), rows)
