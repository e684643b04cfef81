"""Squared distances between the rows of two sets: bounds of whole tiles from fast products, exact values of pairs."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lightning_synthqual.metrics.shard import MEMORY, tiles
from lightning_synthqual.precision import full_precision

_CACHED = 2**19  # numbers of one block of rows: it stays in a processor's cache
_LAUNCHED = 2**22  # on a GPU, where small blocks would be outweighed by the time of starting their kernels
_SHARE, _MOST = 1 / 8, 2**31  # of a GPU's free memory, and bytes beyond which tiles gain nothing

_Reader = Callable[[Tensor | slice], Tensor]


class Pair:
    """Two sets of rows and the squared distances between them: bounds of whole tiles, exact values of single pairs.

    Args:
        x: Features (N, D).
        y: Features (M, D), on the same device.
        unit: Whether rows are divided by their lengths.

    Raises:
        ValueError: If ``unit`` and a row is zero.
    """

    def __init__(self, x: Tensor, y: Tensor, *, unit: bool = False) -> None:
        self.x, self.y = x, y
        self.x_lengths = _lengths(x, "queries") if unit else None
        self.y_lengths = _lengths(y, "references") if unit else None
        self.dtype = working_dtype(x.device)
        # Bounds are of rows that are centred, so that a far-off mean costs no digits, and scaled to at most length 1,
        # so that float32 holds their squares.
        parts = list(_parts(y))
        sums = torch.empty(len(parts), y.shape[1], dtype=torch.float64, device=y.device)
        for place, part in enumerate(parts):
            torch.sum(self._y(part), dim=0, out=sums[place])
        self.origin = sums.sum(dim=0) / len(y)
        x_sizes, x_longest = self._sizes(x, self._x)
        y_sizes, y_longest = (x_sizes, x_longest) if y is x else self._sizes(y, self._y)
        extremes = torch.stack([torch.maximum(x_sizes.max(), y_sizes.max()), torch.maximum(x_longest, y_longest)])
        largest, longest = extremes.tolist()
        self.scale = largest**0.5 or 1.0
        self.x_sizes, self.y_sizes = x_sizes / self.scale**2, y_sizes / self.scale**2
        # What centring in float64 may have rounded off.
        lost = 4 * torch.finfo(torch.float64).eps * longest / self.scale
        self._slack = 8 * lost + 4 * lost**2 + 1e-30

    def lower_bounds(self, rows: slice | Tensor, dtype: torch.dtype, side: int) -> Iterator[tuple[slice, Tensor]]:
        """Lower bounds of the squared distances from rows of ``x`` to all of ``y``, in units of ``scale²``.

        The tensor of a tile, of at most ``side`` columns, is overwritten by the next one.
        """
        side = min(side, len(self.y))
        sizes = (self.x_sizes[rows] * (1 - self._rounding(dtype)) - self._slack).to(dtype)[:, None]
        count = len(sizes)
        left = self._product_rows(self._x, rows, sizes.new_empty(count, self.x.shape[1])).mul_(-2)
        space, block = sizes.new_empty(count * side), sizes.new_empty(side, self.y.shape[1])
        for columns in tiles(range(len(self.y)), side):
            width = columns.stop - columns.start
            tile = space[: count * width].view(count, width)
            right = self._product_rows(self._y, columns, block[:width])
            with full_precision(), torch.autocast(tile.device.type, enabled=False):
                torch.mm(left, right.T, out=tile)
            tile += sizes
            tile += (self.y_sizes[columns] * (1 - self._rounding(dtype))).to(dtype)
            yield columns, tile

    def gap(self, i: Tensor, j: Tensor, dtype: torch.dtype) -> Tensor:
        """How far the squared distances of pairs may lie above their lower bounds, in units of ``scale²``."""
        gap: Tensor = 2 * (self._rounding(dtype) * (self.x_sizes[i] + self.y_sizes[j]) + self._slack)
        return gap

    def exact(self, i: Tensor, j: Tensor) -> Tensor:
        """Squared distances (P,) of pairs of rows, from float64 differences."""
        squared = torch.empty(len(i), dtype=torch.float64, device=self.y.device)
        for part in tiles(range(len(i)), _block_rows(self.x)):
            difference = self._x(i[part]).sub_(self._y(j[part]))
            squared[part] = difference.square_().sum(dim=1)
        return squared

    def _product_rows(self, rows: _Reader, index: slice | Tensor, out: Tensor) -> Tensor:
        """Rows as the products take them: centred and scaled."""
        for part in _parts(out):
            chosen = _shifted(part, index.start) if isinstance(index, slice) else index[part]
            out[part] = rows(chosen).sub_(self.origin).div_(self.scale)
        return out

    def _rounding(self, dtype: torch.dtype) -> float:
        """Rounding error of a bound relative to the squared lengths of its rows.

        That of a dot product of D terms, in any order, is at most D u / (1 - D u) times both lengths, u being half an
        eps; a few more for rounding the rows and adding the squared lengths.
        """
        columns = self.x.shape[1]
        unit = (columns + 16) * torch.finfo(dtype).eps / 2
        return unit / (1 - unit)

    def _x(self, index: Tensor | slice) -> Tensor:
        return _rows(self.x, self.x_lengths, index)

    def _y(self, index: Tensor | slice) -> Tensor:
        return _rows(self.y, self.y_lengths, index)

    def _sizes(self, features: Tensor, rows: _Reader) -> tuple[Tensor, Tensor]:
        """Squared lengths of the centred rows, and the greatest length that was rounded in centring."""
        sizes = torch.empty(len(features), dtype=torch.float64, device=features.device)
        longest = sizes.new_zeros(())
        for part in _parts(features):
            block = rows(part)
            longest = torch.maximum(longest, torch.linalg.vector_norm(block, dim=1).max())
            sizes[part] = block.sub_(self.origin).square_().sum(dim=1)
        return sizes, longest


def working_dtype(device: torch.device) -> torch.dtype:
    """The precision of products: float32 where ``full_precision`` keeps them from being coarser, else float64."""
    return torch.float32 if device.type in ("cpu", "cuda") else torch.float64


def tile_memory(device: torch.device, memory: int = MEMORY) -> int:
    """Bytes that tiles may take on a device: what was asked for; if nothing was, on a GPU as much as is well spared.

    Large tiles keep a GPU busy, and the host waits for each. Processes may get different answers, so that no division
    of work between them may depend on it.
    """
    if device.type != "cuda" or memory != MEMORY:
        return memory
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + unused
    return max(MEMORY, min(_MOST, int(free * _SHARE)))


def _rows(features: Tensor, lengths: Tensor | None, index: Tensor | slice) -> Tensor:
    """Rows in float64, as a copy."""
    rows: Tensor = features[index].to(torch.float64, copy=True)
    return rows if lengths is None else rows.div_(lengths[index, None])


def _shifted(part: slice, start: int) -> slice:
    return slice(part.start + start, part.stop + start)


def _block_rows(rows: Tensor) -> int:
    """How many rows are converted at once."""
    return max(1, (_CACHED if rows.device.type == "cpu" else _LAUNCHED) // rows.shape[1])


def _parts(rows: Tensor) -> Iterator[slice]:
    return tiles(range(len(rows)), _block_rows(rows))


def _lengths(features: Tensor, role: str) -> Tensor:
    lengths = torch.empty(len(features), dtype=torch.float64, device=features.device)
    for part in _parts(features):
        torch.linalg.vector_norm(features[part], dim=1, dtype=torch.float64, out=lengths[part])
    if not lengths.all():
        row = int((lengths == 0).nonzero()[0])
        raise ValueError(f"Row {row} of `{role}` is zero, so it has no direction. Use `distance='euclidean'`.")
    return lengths
