"""Precision and recall: who lies inside the other set's manifold of k-nearest-neighbour balls."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.share import Share, tiles

_TILE = 2048  # rows and columns of a tile of squared distances: 32 MiB of float64


class PrecisionRecall(NamedTuple):
    """Improved precision and recall, float64 scalars in [0, 1]."""

    precision: Tensor
    recall: Tensor


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of Kynkäänniemi et al. 2019 (arXiv:1904.06991); higher is better.

    Precision is the share of fake rows that lie within the ball of some real row (radius: distance to its k-th
    nearest other real row, the border included), recall the same with the roles exchanged. Agrees with torch-fidelity
    and StyleGAN's formula. Precision does not see missing modes, recall does not see bad pictures.

    Args:
        real: Features (N, D), N > k, any floating dtype, any device.
        fake: Features (M, D), M > k.
        k: Which neighbour gives the radius.

    Returns:
        ``precision`` and ``recall``.

    Raises:
        TypeError: If the features are not floating point.
        ValueError: If a set has at most ``k`` rows, contains NaN or infinity, or the dimensions differ.

    Example:
        >>> import torch
        >>> real = torch.arange(6.0)[:, None]
        >>> [value.item() for value in precision_recall(real, real[:4] + 0.25, k=1)]
        [1.0, 0.8333333333333334]
    """
    real, fake = check_pair(real, fake)
    return precision_recall_within(real, squared_radii(real, k), fake, squared_radii(fake, k))


def precision_recall_within(
    real: Tensor, real_radii: Tensor, fake: Tensor, fake_radii: Tensor, share: Share | None = None
) -> PrecisionRecall:
    """Precision and recall where the squared radii (N,), (M,) of both sets are known."""
    share = share or Share()
    hits = torch.zeros(len(fake) + len(real), dtype=torch.float64, device=real.device)
    fake_hits, real_hits = hits[: len(fake)], hits[len(fake) :]
    for rows in tiles(share.rows(len(fake)), _TILE):
        y = fake[rows].double()
        for columns in tiles(range(len(real)), _TILE):
            squared = squared_distances(y, real[columns].double())
            fake_hits[rows] += (squared <= real_radii[columns]).any(dim=1)
            real_hits[columns] += (squared <= fake_radii[rows, None]).any(dim=0)
    hits = share.total(hits) > 0
    return PrecisionRecall(hits[: len(fake)].double().mean(), hits[len(fake) :].double().mean())


def squared_radii(features: Tensor, k: int, share: Share | None = None) -> Tensor:
    """Squared distance (N,) from each row to its k-th nearest other row."""
    if not 1 <= k < len(features):
        raise ValueError(f"`k` must be at least 1 and less than the number of rows, but got k={k}, N={len(features)}.")
    share = share or Share()
    radii = torch.zeros(len(features), dtype=torch.float64, device=features.device)
    for rows in tiles(share.rows(len(features)), _TILE):
        x = features[rows].double()
        nearest = torch.full((len(x), k), torch.inf, dtype=torch.float64, device=x.device)
        for columns in tiles(range(len(features)), _TILE):
            squared = squared_distances(x, features[columns].double())
            if rows.start < columns.stop and columns.start < rows.stop:
                own = torch.arange(max(rows.start, columns.start), min(rows.stop, columns.stop), device=x.device)
                squared[own - rows.start, own - columns.start] = torch.inf  # a row is not its own neighbour
            nearest = torch.cat([nearest, squared], dim=1).topk(k, dim=1, largest=False).values
        radii[rows] = nearest.amax(dim=1)
    return share.total(radii)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances (N, M) of float64 rows (N, D) and (M, D)."""
    origin = y[0]  # any row of the cloud, so that a far-off mean costs no digits
    x, y = x - origin, y - origin
    sizes = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    squared = torch.addmm(sizes, x, y.T, alpha=-2.0)
    # Below the rounding error of this expansion rows count as equal, so that copies are found at distance 0.
    return torch.where(squared <= 1e-13 * sizes, 0.0, squared)
