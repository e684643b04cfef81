"""Whether generated rows keep closer to the training rows than new real rows do."""

import torch
from torch import Tensor

from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.frechet import moments
from lightning_synthqual.metrics.neighbors import search
from lightning_synthqual.metrics.share import MEMORY

_COMPONENTS = 64  # principal components in which cells are formed
_LEAST = 20  # a cell counts if it has more generated rows than this


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
    to_train = search(fake, train, 1, memory=memory)
    within_train = search(train, train, 1, own=True, memory=memory).distances[:, 0]
    authentic = to_train.distances[:, 0] > within_train[to_train.indices[:, 0]]
    return authentic.double().mean()


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
        seed: Of k-means.
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
    sets = [train, held_out, fake]
    if cells == 1:
        labels = [torch.zeros(len(rows), dtype=torch.int64, device=rows.device) for rows in sets]
    else:
        sets = _principal_components(sets)
        labels = _partition(sets, cells, seed)
    return copying_by_cells(sets, labels, memory=memory)


def copying_by_cells(sets: list[Tensor], labels: list[Tensor], *, memory: int = MEMORY) -> Tensor:
    """C_T of training, held-out and generated rows whose cells are known.

    Args:
        sets: Features (N, D), (H, D) and (M, D).
        labels: The rows' cells (N,), (H,) and (M,), counted from 0.
        memory: Bytes that the tiles may take.
    """
    weights, scores = [], []
    for cell in range(int(labels[0].max()) + 1):
        train, held_out, fake = (rows[label == cell] for rows, label in zip(sets, labels, strict=True))
        if len(train) == 0 or len(held_out) == 0:
            raise ValueError(
                f"Cell {cell} has {len(train)} training and {len(held_out)} held-out rows, but needs both. "
                "Choose fewer `cells`."
            )
        if len(fake) > _LEAST:
            ours, theirs = (search(rows, train, 1, memory=memory).distances[:, 0] for rows in (fake, held_out))
            scores.append(_rank_sum_score(ours, theirs))
            weights.append(len(held_out))
    if not scores:
        raise ValueError(f"No cell has more than {_LEAST} of the {len(sets[2])} `fake` rows. Give more of them.")
    weight = torch.tensor(weights, dtype=torch.float64, device=scores[0].device)
    return (weight * torch.stack(scores)).sum() / weight.sum()


def _rank_sum_score(ours: Tensor, theirs: Tensor) -> Tensor:
    """Continuity corrected z of the Mann-Whitney test: below 0 if ``ours`` (m,) are smaller than ``theirs`` (n,)."""
    ordered = theirs.sort().values
    smaller, not_larger = (torch.searchsorted(ordered, ours, right=right) for right in (False, True))
    wins = (smaller + not_larger).double().sum() / 2  # of equals one half
    n, m = len(theirs), len(ours)
    z: Tensor = (wins - (n * m / 2 - 0.5)) / (n * m * (n + m + 1) / 12) ** 0.5
    return z


def _principal_components(sets: list[Tensor]) -> list[Tensor]:
    """The rows of all sets in the principal components of the first, if there are more columns than components."""
    if sets[0].shape[1] <= _COMPONENTS:
        return sets
    mean, covariance = moments(sets[0])
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -_COMPONENTS:]
    return [(rows.double() - mean) @ axes for rows in sets]


def _partition(sets: list[Tensor], cells: int, seed: int) -> list[Tensor]:
    """Cells (by k-means of the first set) of the rows of all sets."""
    from sklearn.cluster import KMeans

    first, *others = (rows.double().cpu().numpy() for rows in sets)
    means = KMeans(cells, n_init=10, random_state=seed).fit(first)
    labels = [means.labels_, *(means.predict(rows) for rows in others)]
    return [torch.from_numpy(label).to(rows.device, torch.int64) for label, rows in zip(labels, sets, strict=True)]
