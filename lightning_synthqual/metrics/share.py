"""How several processes divide one computation by rows, and how the arithmetic stays ignorant of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor


def _alone(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Share:
    """One process's share of a computation; the default does all of it alone.

    Args:
        rank: This process, in ``[0, world_size)``.
        world_size: How many processes divide the rows.
        total: Sums a tensor over the processes and returns the sum to each of them. It may be a collective, so every
            process has to call it equally often.
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
