"""Nearest neighbours, and which rows lie within given distances: fast bounds first, exact where they do not decide.

A tile of squared distances comes from one matrix product, in float32 on a CPU, and is widened by the rounding error
that such a product can have. Only what the bounds leave open is computed again, by float64 differences of the rows. So
the results are those of float64 differences, for any tiles.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.metrics.features import check_pair
from lightning_synthqual.metrics.shard import MEMORY, Shard, tile_size, tiles

_SPARE = 8  # neighbours remembered beyond the k-th in the first pass, so that rounding can't push one of the k out
_MANY = 64  # and in the second pass, for rows that have more near ties than that
_ELEMENTS = 2**19  # numbers of one block of differences: it stays in a processor's cache

Distance = Literal["euclidean", "cosine"]
_Reader = Callable[[Tensor | slice], Tensor]


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
    shard = shard or Shard()
    pair = Pair(queries, references, unit=unit)
    found = torch.zeros(2, len(queries), k, dtype=torch.float64, device=references.device)
    for rows in tiles(shard.rows(len(queries)), tile_size(queries.shape[1], memory)):
        members = torch.arange(rows.start, rows.stop, device=references.device)
        squared, indices, sure = _nearest(pair, members, k, _SPARE, pair.dtype, own, memory)
        if pair.dtype != torch.float64 and not sure.all():
            squared[~sure], indices[~sure], _ = _nearest(pair, members[~sure], k, _MANY, torch.float64, own, memory)
        found[0, rows], found[1, rows] = squared, indices.double()
    found = shard.total(found)
    return Neighbors(found[0], found[1].long())


def squared_radii(features: Tensor, k: int, shard: Shard | None = None, memory: int = MEMORY) -> Tensor:
    """Squared distance (N,) from each row to its k-th nearest other row.

    Raises:
        ValueError: If ``k`` is not in [1, N).
    """
    if not 1 <= k < len(features):
        raise ValueError(f"`k` must be at least 1 and less than the number of rows, but got k={k}, N={len(features)}.")
    return search(features, features, k, own=True, shard=shard, memory=memory).distances[:, -1]


def within(
    x: Tensor,
    y: Tensor,
    limits: tuple[Tensor, ...],
    *,
    strict: bool = False,
    shard: Shard | None = None,
    memory: int = MEMORY,
) -> Iterator[tuple[Tensor, ...]]:
    """For each tile of the pairs of rows (i of ``x``, j of ``y``) those that are within a limit.

    Args:
        x: Features (N, D).
        y: Features (M, D).
        limits: Squared distances, each of shape (N, 1) or (1, M).
        strict: Whether ``<`` instead of ``<=``.
        shard: This process's shard of the rows of ``x``.
        memory: Bytes that the tiles may take.

    Yields:
        For each limit the pairs (2, P) that are within it.
    """
    pair = Pair(x, y)
    side = tile_size(x.shape[1], memory)
    for rows in tiles((shard or Shard()).rows(len(x)), side):
        members = torch.arange(rows.start, rows.stop, device=x.device)
        for columns, lower in pair.lower_bounds(members, pair.dtype, memory):
            found = []
            for limit in limits:
                part = limit[rows] if limit.shape[1] == 1 else limit[:, columns]
                # Rounded up: what is compared in the precision of the bounds errs on the side of looking closer.
                rough = torch.nextafter((part / pair.scale**2).to(lower.dtype), torch.tensor(torch.inf).to(lower))
                places = (lower <= rough).nonzero().T
                i, j = places[0] + rows.start, places[1] + columns.start
                bound = limit[i, 0] if limit.shape[1] == 1 else limit[0, j]
                upper = lower[places[0], places[1]].double() + pair.gap(i, j, lower.dtype)
                inside = upper * pair.scale**2 < bound
                open_ = ~inside
                exact = pair.exact(i[open_], j[open_])
                inside[open_] = exact < bound[open_] if strict else exact <= bound[open_]
                found.append(torch.stack([i[inside], j[inside]]))
            yield tuple(found)


class Pair:
    """Two sets of rows and the squared distances between them: bounds of whole tiles, exact values of single pairs.

    Args:
        x: Features (N, D).
        y: Features (M, D).
        unit: Whether rows are divided by their lengths.

    Raises:
        ValueError: If ``unit`` and a row is zero.
    """

    def __init__(self, x: Tensor, y: Tensor, *, unit: bool = False) -> None:
        self.x, self.y = x, y
        self.x_lengths = _lengths(x, "queries") if unit else None
        self.y_lengths = _lengths(y, "references") if unit else None
        self.dtype = _working_dtype(x.device)
        # Bounds are of rows that are centred, so that a far-off mean costs no digits, and scaled to at most length 1,
        # so that float32 holds their squares.
        parts = list(_parts(y))
        sums = torch.empty(len(parts), y.shape[1], dtype=torch.float64, device=y.device)
        for place, part in enumerate(parts):
            torch.sum(self._y(part), dim=0, out=sums[place])
        self.origin = sums.sum(dim=0) / len(y)
        x_sizes, x_longest = self._sizes(x, self._x)
        y_sizes, y_longest = (x_sizes, x_longest) if y is x else self._sizes(y, self._y)
        self.scale = max(float(x_sizes.max()), float(y_sizes.max())) ** 0.5 or 1.0
        self.x_sizes, self.y_sizes = x_sizes / self.scale**2, y_sizes / self.scale**2
        # What centring in float64 may have rounded off.
        lost = 4 * torch.finfo(torch.float64).eps * max(x_longest, y_longest) / self.scale
        self._slack = 8 * lost + 4 * lost**2 + 1e-30

    def lower_bounds(self, members: Tensor, dtype: torch.dtype, memory: int) -> Iterator[tuple[slice, Tensor]]:
        """Lower bounds of the squared distances from rows of ``x`` to all of ``y``, in units of ``scale²``.

        The tensor of a tile is overwritten by the next one.
        """
        side = tile_size(self.x.shape[1], memory)
        rows = self._product_rows(
            self._x, members, self.origin.new_empty(len(members), self.x.shape[1], dtype=dtype)
        ).mul_(-2)
        sizes = (self.x_sizes[members] * (1 - self._rounding(dtype)) - self._slack).to(dtype)[:, None]
        space = rows.new_empty(len(members) * min(side, len(self.y)))
        block = rows.new_empty(min(side, len(self.y)), self.y.shape[1])
        for columns in tiles(range(len(self.y)), side):
            count = columns.stop - columns.start
            tile = space[: len(members) * count].view(len(members), count)
            with torch.autocast(tile.device.type, enabled=False):
                torch.mm(
                    rows,
                    self._product_rows(self._y, torch.arange(columns.start, columns.stop), block[:count]).T,
                    out=tile,
                )
            tile += sizes
            tile += (self.y_sizes[columns] * (1 - self._rounding(dtype))).to(dtype)
            yield columns, tile

    def gap(self, i: Tensor, j: Tensor, dtype: torch.dtype) -> Tensor:
        """How far the squared distances of pairs may lie above their lower bounds, in units of ``scale²``."""
        return 2 * (self._rounding(dtype) * (self.x_sizes[i] + self.y_sizes[j]) + self._slack)

    def exact(self, i: Tensor, j: Tensor) -> Tensor:
        """Squared distances (P,) of pairs of rows, from float64 differences."""
        squared = torch.empty(len(i), dtype=torch.float64, device=self.y.device)
        for part in tiles(range(len(i)), max(1, _ELEMENTS // self.x.shape[1])):
            difference = self._x(i[part]).sub_(self._y(j[part]))
            squared[part] = difference.square_().sum(dim=1)
        return squared

    def _product_rows(self, rows: _Reader, index: Tensor, out: Tensor) -> Tensor:
        """Rows as the products take them: centred and scaled."""
        for part in _parts(out):
            out[part] = rows(index[part]).sub_(self.origin).div_(self.scale)
        return out

    def _rounding(self, dtype: torch.dtype) -> float:
        """Rounding error of a bound relative to the squared lengths of its rows.

        That of a dot product of D terms is at most D u / (1 - D u) times both lengths, u being half an eps; a few more
        for rounding the rows and adding the squared lengths.
        """
        columns = self.x.shape[1]
        unit = (columns + 16) * torch.finfo(dtype).eps / 2
        return unit / (1 - unit)

    def _x(self, index: Tensor | slice) -> Tensor:
        return _rows(self.x, self.x_lengths, index)

    def _y(self, index: Tensor | slice) -> Tensor:
        return _rows(self.y, self.y_lengths, index)

    def _sizes(self, features: Tensor, rows: _Reader) -> tuple[Tensor, float]:
        """Squared lengths of the centred rows, and the greatest length that was rounded in centring."""
        sizes = torch.empty(len(features), dtype=torch.float64, device=features.device)
        longest = 0.0
        for part in _parts(features):
            block = rows(part)
            longest = max(longest, float(torch.linalg.vector_norm(block, dim=1).max()))
            sizes[part] = block.sub_(self.origin).square_().sum(dim=1)
        return sizes, longest


def _rows(features: Tensor, lengths: Tensor | None, index: Tensor | slice) -> Tensor:
    """Rows in float64, as a copy."""
    rows: Tensor = features[index].to(torch.float64, copy=True)
    return rows if lengths is None else rows.div_(lengths[index, None])


def _parts(rows: Tensor) -> Iterator[slice]:
    return tiles(range(len(rows)), max(1, _ELEMENTS // rows.shape[1]))


def _lengths(features: Tensor, role: str) -> Tensor:
    lengths = torch.empty(len(features), dtype=torch.float64, device=features.device)
    for part in _parts(features):
        torch.linalg.vector_norm(features[part], dim=1, dtype=torch.float64, out=lengths[part])
    if not lengths.all():
        row = int((lengths == 0).nonzero()[0])
        raise ValueError(f"Row {row} of `{role}` is zero, so it has no direction. Use `distance='euclidean'`.")
    return lengths


def _working_dtype(device: torch.device) -> torch.dtype:
    """The precision of products: float32 on a CPU, unless it is set to a coarser type there."""
    exact = device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if exact else torch.float64


def _nearest(
    pair: Pair, members: Tensor, k: int, spare: int, dtype: torch.dtype, own: bool, memory: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest of ``y`` for some rows of ``x``: squared distances, indices, and whether they certainly are."""
    kept = k + spare
    lower = torch.full((len(members), kept), torch.inf, dtype=dtype, device=members.device)
    places = torch.zeros_like(lower, dtype=torch.int64)
    for columns, tile in pair.lower_bounds(members, dtype, memory):
        if own:
            mine = ((members >= columns.start) & (members < columns.stop)).nonzero()[:, 0]
            tile[mine, members[mine] - columns.start] = torch.inf  # a row is not its own neighbour
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
    row, slot = needed.nonzero().T
    exact[row, slot] = pair.exact(members[row], places[row, slot])
    squared, order = exact.sort(dim=1, stable=True)
    # A reference that was not kept has a lower bound beyond the greatest one kept.
    return squared[:, :k], places.gather(1, order)[:, :k], bounds.amax(dim=1) > kth[:, 0]
