"""Nearest neighbours, and which rows lie within given distances: fast bounds first, exact where they do not decide.

A tile of squared distances comes from one matrix product, in float32, and is widened by the rounding error that such a
product can have. Only what the bounds leave open is computed again, by float64 differences of the rows. So the results
are those of float64 differences, for any tiles and on any device. The host waits for the device at most twice a tile.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.metrics.bounds import Pair, tile_memory
from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.shard import MEMORY, Shard, tile_size, tiles

_SPARE = 8  # neighbours remembered beyond the k-th in the first pass, so that rounding can't push one of the k out
_MANY = 64  # and in the second pass, for rows that have more near ties than that

Distance = Literal["euclidean", "cosine"]


class Neighbors(NamedTuple):
    """The nearest references of each query, nearest first; see the function ``nearest_neighbors``.

    Attributes:
        distances: (N, k) float64.
        indices: (N, k) int64, into the references.

    Example:
        >>> import torch
        >>> nearest_neighbors(torch.tensor([[3.0]]), torch.tensor([[0.0], [4.0]]))
        Neighbors(distances=tensor([[1.]], dtype=torch.float64), indices=tensor([[1]]))
    """

    distances: Tensor
    indices: Tensor


def nearest_neighbors(
    queries: Tensor, references: Tensor, *, k: int = 1, distance: Distance = "euclidean", memory: int = MEMORY
) -> Neighbors:
    """Find the ``k`` nearest reference rows of every query row.

    Agrees with scikit-learn's brute force search on float64 rows. Copies are found at distance 0 exactly.

    Args:
        queries: Features (N, D), N >= 1, any floating dtype, any device.
        references: Features (M, D), M >= k.
        k: Number of neighbours.
        distance: ``"euclidean"``, or ``"cosine"`` for 1 - cosine.
        memory: Bytes that the tiles of the computation may take.

    Returns:
        ``distances`` and ``indices``. Of references at equal distances any may come first.

    Raises:
        TypeError: If the features are no tensors.
        ValueError: If the features are not floating point, a set is empty or contains NaN or infinity, the dimensions
            differ, ``k`` is not in [1, M], or a row has no direction (cosine).

    Example:
        >>> import torch
        >>> found = nearest_neighbors(torch.tensor([[1.0, 0.0]]), torch.eye(2), k=2)
        >>> found.indices.tolist(), found.distances[0, 0].item()
        ([[0, 1]], 0.0)
    """
    references, queries = check_pair(references, queries, ("references", "queries"), least=1)
    if not 1 <= k <= len(references):
        raise ValueError(f"`k` must be from 1 to the number of references, but got k={k}, M={len(references)}.")
    if distance not in ("euclidean", "cosine"):
        raise ValueError(f"`distance` must be 'euclidean' or 'cosine', but got {distance!r}.")
    unit = distance == "cosine"
    found = search(queries, references, k, unit=unit, memory=memory)
    return Neighbors(found.distances / 2 if unit else found.distances.sqrt(), found.indices)


def search(
    queries: Tensor,
    references: Tensor,
    k: int,
    *,
    own: bool = False,
    unit: bool = False,
    shard: Shard | None = None,
    memory: int = MEMORY,
) -> Neighbors:
    """The ``k`` nearest references of every query, with squared Euclidean distances.

    Args:
        queries: Features (N, D).
        references: Features (M, D).
        k: Number of neighbours.
        own: Whether both are the same set, where a row is not its own neighbour.
        unit: Whether rows are divided by their lengths.
        shard: This process's shard of the rows.
        memory: Bytes that the tiles may take.
    """
    shard, side = shard or Shard(), _side(queries, memory)
    pair = Pair(queries, references, unit=unit)
    found = torch.zeros(2, len(queries), k, dtype=torch.float64, device=references.device)
    for rows in tiles(shard.rows(len(queries)), side):
        squared, indices, unsure = _nearest(pair, rows, k, _SPARE, pair.dtype, own, side)
        if pair.dtype != torch.float64:
            left = unsure.nonzero()[:, 0]
            if len(left):
                again = _nearest(pair, left + rows.start, k, _MANY, torch.float64, own, side)
                squared[left], indices[left] = again[:2]
        found[0, rows], found[1, rows] = squared, indices.double()
    found = shard.total(found)
    return Neighbors(found[0], found[1].long())


def squared_radii(features: Tensor, k: int, shard: Shard | None = None, memory: int = MEMORY) -> Tensor:
    """Squared distance (N,) from each row to its k-th nearest other row.

    Raises:
        ValueError: If ``k`` is not in [1, N).
    """
    return squared_radii_for(features, (k,), shard, memory)[0]


def squared_radii_for(
    features: Tensor, ks: Sequence[int], shard: Shard | None = None, memory: int = MEMORY
) -> tuple[Tensor, ...]:
    """``squared_radii`` for each ``k`` of ``ks``, from one search.

    Raises:
        ValueError: If a ``k`` is not in [1, N).
    """
    for k in ks:
        if not 1 <= k < len(features):
            raise ValueError(
                f"`k` must be at least 1 and less than the number of rows, but got k={k}, N={len(features)}."
            )
    distances = search(features, features, max(ks), own=True, shard=shard, memory=memory).distances
    return tuple(distances[:, k - 1].clone() for k in ks)


class Limit(NamedTuple):
    """A bound of squared distances.

    Attributes:
        squared: The bound (N, 1) of each row of the first set, or (1, M) of each row of the second one.
        strict: Whether a distance that equals it is beyond it.
    """

    squared: Tensor
    strict: bool = False


class Near(NamedTuple):
    """Pairs of rows of which some are within a limit.

    Attributes:
        i: Rows (P,) of the first set, int64.
        j: Rows (P,) of the second set, int64.
        inside: Whether each pair is within each of L limits (L, P), bool.
    """

    i: Tensor
    j: Tensor
    inside: Tensor


def near(
    x: Tensor, y: Tensor, limits: Sequence[Limit], *, shard: Shard | None = None, memory: int = MEMORY
) -> Iterator[Near]:
    """For each tile of the pairs of rows (i of ``x``, j of ``y``) those that are within some of the limits.

    All limits share one pass over the pairs. Sum what is inside by ``scatter_add_``; selecting it by a mask would let
    the host wait for the device once more.

    Args:
        x: Features (N, D).
        y: Features (M, D).
        limits: Limits of squared distances.
        shard: This process's shard of the rows of ``x``.
        memory: Bytes that the tiles may take.

    Yields:
        The pairs of a tile that are within a limit, among a few that are within none.
    """
    pair, side = Pair(x, y), _side(x, memory)
    # Rounded up: what is compared in the precision of the bounds errs on the side of looking closer.
    rough = [_rounded_up(limit / pair.scale**2, pair.dtype) for limit in _greatest([each.squared for each in limits])]
    for rows in tiles((shard or Shard()).rows(len(x)), side):
        for columns, lower in pair.lower_bounds(rows, pair.dtype, side):
            close = _at_most(lower, rough, rows, columns)
            i, j = close.nonzero().unbind(dim=1)
            least = lower[i, j].double()
            yield _decided(pair, i + rows.start, j + columns.start, least, limits)


def _side(rows: Tensor, memory: int) -> int:
    """Side of the tiles of rows like these."""
    return tile_size(rows.shape[1], tile_memory(rows.device, memory))


def _greatest(limits: Sequence[Tensor]) -> list[Tensor]:
    """The greatest limits of the rows (N, 1), and of the columns (1, M), as far as there are any."""
    groups = ([each for each in limits if each.shape[1] == 1], [each for each in limits if each.shape[1] != 1])
    return [torch.stack(group).amax(dim=0) for group in groups if group]


def _rounded_up(limits: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = limits.to(dtype)
    return torch.nextafter(rounded, torch.full_like(rounded, torch.inf))


def _at_most(lower: Tensor, limits: list[Tensor], rows: slice, columns: slice) -> Tensor:
    """Where a tile of lower bounds is at most one of the limits."""
    close = [lower <= (limit[rows] if limit.shape[1] == 1 else limit[:, columns]) for limit in limits]
    return close[0] if len(close) == 1 else close[0].logical_or_(close[1])


def _decided(pair: Pair, i: Tensor, j: Tensor, least: Tensor, limits: Sequence[Limit]) -> Near:
    """Which pairs are within which limit: by the bounds of their distances, by the distance where these are not enough.

    Args:
        pair: The sets.
        i: Rows (P,) of the first set.
        j: Rows (P,) of the second one.
        least: Lower bounds (P,) of their squared distances, in units of ``scale²``.
        limits: The limits.
    """
    bounds = [each.squared[i, 0] if each.squared.shape[1] == 1 else each.squared[0, j] for each in limits]
    most = (least + pair.gap(i, j, pair.dtype)) * pair.scale**2
    least = least * pair.scale**2 * (1 - 1e-12)  # the product is rounded
    inside = torch.stack([most < bound for bound in bounds])
    possible = torch.stack([least <= bound for bound in bounds])
    open_ = (possible & ~inside).any(dim=0).nonzero()[:, 0]
    exact = pair.exact(i[open_], j[open_])
    for place, (bound, limit) in enumerate(zip(bounds, limits, strict=True)):
        inside[place, open_] = exact < bound[open_] if limit.strict else exact <= bound[open_]
    return Near(i, j, inside)


def _nearest(
    pair: Pair, rows: slice | Tensor, k: int, spare: int, dtype: torch.dtype, own: bool, side: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest of ``y`` for some rows of ``x``: squared distances, indices, and whether they are uncertain."""
    members = torch.arange(rows.start, rows.stop, device=pair.y.device) if isinstance(rows, slice) else rows
    kept = k + spare
    lower = torch.full((len(members), kept), torch.inf, dtype=dtype, device=members.device)
    places = torch.zeros_like(lower, dtype=torch.int64)
    for columns, tile in pair.lower_bounds(rows, dtype, side):
        if own:
            _exclude(tile, rows, columns)
        best = tile.topk(min(kept, tile.shape[1]), dim=1, largest=False, sorted=False)
        lower, chosen = torch.cat([lower, best.values], dim=1).topk(kept, dim=1, largest=False, sorted=False)
        places = torch.cat([places, best.indices + columns.start], dim=1).gather(1, chosen)
    # In order of the index, which the stable sort below keeps among equals.
    places, order = places.sort(dim=1)
    bounds = lower.gather(1, order).double()
    upper = bounds + pair.gap(members[:, None], places, dtype)
    kth = upper.topk(k, dim=1, largest=False).values.amax(dim=1, keepdim=True)  # kthvalue has no deterministic form
    needed = (bounds <= kth) & bounds.isfinite()
    exact = torch.full_like(bounds, torch.inf)
    row, slot = needed.nonzero().unbind(dim=1)
    exact[row, slot] = pair.exact(members[row], places[row, slot])
    squared, order = exact.sort(dim=1, stable=True)
    # A reference that was not kept has a lower bound beyond the greatest one kept.
    return squared[:, :k], places.gather(1, order)[:, :k], bounds.amax(dim=1) <= kth[:, 0]


def _exclude(tile: Tensor, rows: slice | Tensor, columns: slice) -> None:
    """Make the distance of each row to itself infinite: a row is not its own neighbour."""
    if not isinstance(rows, slice):
        others = torch.arange(columns.start, columns.stop, device=tile.device)
        tile.masked_fill_(rows[:, None] == others, torch.inf)
        return
    start, stop = max(rows.start, columns.start), min(rows.stop, columns.stop)
    if start < stop:
        tile[start - rows.start : stop - rows.start, start - columns.start : stop - columns.start].fill_diagonal_(
            torch.inf
        )
