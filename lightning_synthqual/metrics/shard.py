"""How several processes divide one computation by rows, and how the arithmetic stays ignorant of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import sqrt

from torch import Tensor

MEMORY = 64 * 2**20  # bytes that the tiles of a computation may take


_halvings: ContextVar[int] = ContextVar("halvings", default=0)


def _alone(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Shard:
    """One process's part of a computation; the default does all of it alone.

    Args:
        rank: Number of this process, in ``[0, world_size)``.
        world_size: Number of processes that divide the rows.
        total: Function that sums a tensor over the processes and returns the sum to each of them. It may be a
            collective, so every process has to call it equally often.
    """

    rank: int = 0
    world_size: int = 1
    total: Callable[[Tensor], Tensor] = _alone

    def rows(self, count: int) -> range:
        """The contiguous rows out of ``count`` that this process owns."""
        return range(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)


def tiles(rows: range, size: int) -> Iterator[slice]:
    """Cut ``rows`` into consecutive slices of at most ``size``."""
    for start in range(rows.start, rows.stop, size):
        yield slice(start, min(start + size, rows.stop))


@contextmanager
def smaller_tiles(halvings: int) -> Iterator[None]:
    """Halve the memory of all tiles so many times within the context, which every process enters alike."""
    token = _halvings.set(halvings)
    try:
        yield
    finally:
        _halvings.reset(token)


def tile_size(columns: int, memory: int = MEMORY) -> int:
    """Side of a square tile that fits ``memory`` bytes together with the two blocks of rows it is made from.

    Args:
        columns: Number of columns, D.
        memory: Bytes for float64 numbers: the tile and the two blocks.

    Raises:
        ValueError: If not even one row of each fits.

    Example:
        >>> tile_size(2048), tile_size(64, memory=2**20)
        (1496, 296)
    """
    halvings = _halvings.get()
    side = int(sqrt(columns**2 + (memory >> halvings) / 8)) - columns
    if side < 1 and halvings:
        return 1
    if side < 1:
        raise ValueError(f"`memory` of {memory} bytes is too little for rows of {columns} columns. Give more.")
    return side if side < 8 else side - side % 8  # rows that begin on a cache line are summed faster
