"""Whether generated rows are closer to the training rows than new real rows are."""

from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.frechet import moments
from lightning_synthqual.metrics.neighbors import Neighbors, search
from lightning_synthqual.metrics.shard import MEMORY, Shard, tiles

_BLOCK = 4096  # rows that are projected at once
_COMPONENTS = 64  # principal components in which cells are formed
_MIN_ROWS = 20  # a cell counts if it has more generated rows than this


def authenticity(train: Tensor, fake: Tensor, *, memory: int = MEMORY) -> Tensor:
    """Share of authentic generated rows, by Alaa et al. 2022 (arXiv:2102.08921).

    A generated row is authentic if it is farther from its nearest training row than that one is from its own nearest
    training row. The neutral point depends on the dimension (above one half even for new real rows), so compare with
    the value of held-out rows. A generator whose samples shrink towards the centre looks like one that copies.
    Agrees, as a fraction, with the AuthPct of dgm-eval.

    Args:
        train: Features (N, D), any floating dtype, any device.
        fake: Features (M, D).
        memory: Bytes that the tiles of the computation may take.

    Returns:
        Scalar float64 tensor in [0, 1].

    Raises:
        TypeError: If the features are no tensors.
        ValueError: If the features are not floating point, a set has fewer than 2 rows or contains NaN or infinity, or
            the dimensions differ.

    Example:
        >>> import torch
        >>> train = torch.tensor([[0.0], [1.0], [2.0]])
        >>> authenticity(train, torch.tensor([[0.0], [3.5]])).item()
        0.5
    """
    train, fake = check_pair(train, fake, ("train", "fake"))
    nearest = search(fake, train, 1, memory=memory)
    return WithinTraining(train, memory=memory).authentic(nearest).mean()


class WithinTraining:
    """How far training rows lie from each other, found for those rows only that somebody asks for, and remembered.

    Args:
        train: Features (N, D).
        unit: Whether rows are divided by their lengths.
        shard: This process's shard of searching.
        memory: Bytes that the tiles may take.
    """

    def __init__(self, train: Tensor, *, unit: bool = False, shard: Shard | None = None, memory: int = MEMORY) -> None:
        self._train = train
        self._unit = unit
        self._shard = shard
        self._memory = memory
        self._known = torch.full((len(train),), torch.nan, dtype=torch.float64, device=train.device)

    def authentic(self, nearest: Neighbors) -> Tensor:
        """Which rows are farther from their nearest training row than that one is from its own: 1 or 0, float64 (M,).

        Args:
            nearest: The rows' nearest training rows, with squared distances.
        """
        return (nearest.distances[:, 0] > self._at(nearest.indices[:, 0])).double()

    def _at(self, indices: Tensor) -> Tensor:
        """Squared distance of training rows to their nearest others."""
        places = indices.unique()
        missing = places[self._known[places].isnan()]
        if len(missing):
            # The first of two is the row itself, at no distance, or an equal one.
            found = search(
                self._train[missing], self._train, 2, unit=self._unit, shard=self._shard, memory=self._memory
            )
            self._known[missing] = found.distances[:, 1]
        return self._known[indices]


def data_copying_test(
    train: Tensor, held_out: Tensor, fake: Tensor, *, cells: int = 3, seed: int = 0, memory: int = MEMORY
) -> Tensor:
    """The data-copying statistic C_T of Meehan et al. 2020 (arXiv:2004.05675).

    In each cell of a k-means partition of the training rows, distances to the nearest training row of the cell: z of
    the Mann-Whitney test of generated against held-out rows, averaged with the shares of held-out rows as weights.
    Well below 0 means copying, well above 0 underfitting; cells with 20 generated rows or fewer do not count. A
    generator whose samples shrink towards the centre looks like one that copies. Agrees with dgm-eval for equal
    cells: of more than 64 columns the first 64 principal components of the training rows are used, unless there is
    one cell alone.

    Args:
        train: Features (N, D), any floating dtype, any device.
        held_out: Features (H, D) of real rows that were not trained on.
        fake: Features (M, D), M > 20.
        cells: Number of cells.
        seed: Random seed of k-means.
        memory: Bytes that the tiles of the computation may take.

    Returns:
        Scalar float64 tensor.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: If the features are not floating point, a set is too small or contains NaN or infinity, the
            dimensions differ, or a cell has no held-out rows.

    Example:
        >>> import torch
        >>> train = torch.arange(40.0)[:, None]
        >>> round(data_copying_test(train, train + 0.4, train, cells=1).item(), 3)
        -7.693
    """
    train, held_out = check_pair(train, held_out, ("train", "held_out"))
    train, fake = check_pair(train, fake, ("train", "fake"))
    if not 1 <= cells <= len(train):
        raise ValueError(f"`cells` must be from 1 to the number of training rows, but got {cells}.")
    partition = Partition(train, cells, seed)
    return copying_statistic(*(partition.distances(rows, memory) for rows in (held_out, fake)))


CellDistances = tuple[Tensor, Tensor]


class Partition:
    """Training rows in cells, by k-means; with many columns in their principal components, as distances are then too.

    Args:
        train: Features (N, D).
        cells: Number of cells.
        seed: Random seed of k-means.
        unit: Whether rows are divided by their lengths.
        shard: This process's shard of searching; the first process forms the cells for all.
        labels: The cells (N,) of the rows, where they are known.
    """

    def __init__(
        self,
        train: Tensor,
        cells: int,
        seed: int = 0,
        *,
        unit: bool = False,
        shard: Shard | None = None,
        labels: Tensor | None = None,
    ) -> None:
        self.cells = cells
        self.shard = shard or Shard()
        self._unit = unit
        self._means: Any = None
        self._axes: tuple[Tensor, Tensor] | None = None
        fits = labels is None and cells > 1
        if fits and train.shape[1] > _COMPONENTS:
            self._axes = self._principal_axes(train)
        self._train = self._placed(train)
        if fits and self.shard.rank == 0:
            from sklearn.cluster import KMeans

            self._means = KMeans(cells, n_init=10, random_state=seed).fit(self._array(self._train))
        self.labels = self._assign(self._train) if labels is None else labels

    def _principal_axes(self, train: Tensor) -> tuple[Tensor, Tensor]:
        """The mean (D,) and the leading principal axes (D, at most 64), the same on every process."""
        count, dimension = train.shape
        mean = torch.zeros(dimension, dtype=torch.float64, device=train.device)
        axes = mean.new_zeros(dimension, min(_COMPONENTS, count - 1))
        if self.shard.rank == 0:
            rows = unit_rows(train) if self._unit else train
            if count > dimension:
                mean, covariance = moments(rows)
                axes = torch.linalg.eigh(covariance).eigenvectors[:, -axes.shape[1] :].contiguous()
            else:
                mean = rows.double().mean(dim=0)
                axes = _axes_of_few(rows.double() - mean, axes.shape[1])
        return self.shard.total(mean), self.shard.total(axes)

    def _placed(self, rows: Tensor) -> Tensor:
        """Rows where cells are formed and distances measured."""
        if self._axes is None:
            return rows
        mean, axes = self._axes
        placed = rows.new_empty(len(rows), axes.shape[1], dtype=torch.float64)
        for part in tiles(range(len(rows)), _BLOCK):
            placed[part] = ((unit_rows(rows[part]) if self._unit else rows[part].double()) - mean) @ axes
        return placed

    def _array(self, placed: Tensor) -> Any:
        """Placed rows as scikit-learn takes them."""
        unit = self._unit and self._axes is None
        return (unit_rows(placed) if unit else placed.double()).cpu().numpy()

    def _assign(self, placed: Tensor) -> Tensor:
        """The cell (N,) of each row, the same on every process."""
        labels = torch.zeros(len(placed), dtype=torch.int64, device=placed.device)
        if self._means is not None:
            labels = torch.from_numpy(self._means.predict(self._array(placed))).to(labels)
        return self.shard.total(labels)

    def distances(self, rows: Tensor, memory: int = MEMORY, labels: Tensor | None = None) -> CellDistances:
        """Squared distance (M,) of rows (M, D) to the nearest training row of their cell, and their cells (M,)."""
        placed = self._placed(rows)
        labels = self._assign(placed) if labels is None else labels
        nearest = torch.full((len(rows),), torch.nan, dtype=torch.float64, device=rows.device)
        for cell in range(self.cells):
            members, train = labels == cell, self._train[self.labels == cell]
            if members.any() and len(train):
                unit = self._unit and self._axes is None
                found = search(placed[members], train, 1, unit=unit, shard=self.shard, memory=memory)
                nearest[members] = found.distances[:, 0]
        return nearest, labels


def copying_statistic(held_out: CellDistances, fake: CellDistances) -> Tensor:
    """C_T of the distances of held-out and of generated rows to the nearest training rows of their cells.

    Raises:
        ValueError: If a cell with generated rows has no training or held-out rows, or no cell has enough of the
            generated ones.
    """
    weights, scores = [], []
    for cell in fake[1].unique().tolist():
        held, generated = (distances[labels == cell] for distances, labels in (held_out, fake))
        if len(held) == 0 or generated.isnan().any():
            raise ValueError(
                f"Cell {cell} has {len(held)} held-out rows"
                + (" and no training rows. " if generated.isnan().any() else ", but needs some. ")
                + "Choose fewer `cells`."
            )
        if len(generated) > _MIN_ROWS:
            scores.append(_rank_sum_score(generated, held))
            weights.append(len(held))
    if not scores:
        raise ValueError(f"No cell has more than {_MIN_ROWS} of the {len(fake[0])} `fake` rows. Give more of them.")
    weight = torch.tensor(weights, dtype=torch.float64, device=scores[0].device)
    return (weight * torch.stack(scores)).sum() / weight.sum()


def _axes_of_few(centred: Tensor, count: int) -> Tensor:
    """The leading principal axes (D, count) of centred rows (N, D), N <= D, from their Gram matrix (N, N)."""
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    spans = values > len(centred) * torch.finfo(values.dtype).eps * values[-1]
    # An axis along which the rows do not vary is zero: nothing is projected on it.
    scales = torch.where(spans, values.clamp(min=0).rsqrt(), 0.0)
    axes: Tensor = centred.T @ (vectors[:, -count:] * scales[-count:])
    return axes


def unit_rows(rows: Tensor) -> Tensor:
    """Rows divided by their lengths, float64."""
    wide = rows.double()
    lengths: Tensor = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    return wide / lengths


def _rank_sum_score(fake: Tensor, held_out: Tensor) -> Tensor:
    """Continuity corrected z of the Mann-Whitney test: below 0 if ``fake`` (m,) are smaller than ``held_out`` (n,)."""
    ordered = held_out.sort().values
    smaller, not_larger = (torch.searchsorted(ordered, fake, right=right) for right in (False, True))
    wins = (smaller + not_larger).double().sum() / 2  # of equals one half
    n, m = len(held_out), len(fake)
    z: Tensor = (wins - (n * m / 2 - 0.5)) / (n * m * (n + m + 1) / 12) ** 0.5
    return z
