"""How a set of images is distributed over processes: all of it on each, or different parts of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Parts:
    """Which process has which part of a set; without arguments every process has all of it.

    Processes with the same data share the work on them. Data that differ are parts of one set.

    Args:
        rank: Number of this process.
        of_rank: Number of the part that each process has.
        items: Number of images in each part, where it is known.

    Example:
        >>> parts = Parts.of(["left", "right", "right"], rank=2)
        >>> parts.of_rank, parts.turn(2, 3), parts.offset([30, 10, 10])
        ((0, 1, 1), (1, 2), 30)
    """

    rank: int = 0
    of_rank: tuple[int, ...] = (0,)
    items: tuple[int, ...] | None = None

    @classmethod
    def of(cls, contents: Sequence[str], rank: int) -> "Parts":
        """The parts of processes with these contents, equal strings meaning equal data."""
        order = list(dict.fromkeys(contents))
        return cls(rank, tuple(order.index(each) for each in contents))

    @property
    def count(self) -> int:
        """Number of parts."""
        return max(self.of_rank) + 1

    @property
    def divided(self) -> bool:
        """Whether there are several parts."""
        return self.count > 1

    @property
    def number(self) -> int:
        """Number of this process's part."""
        return self.of_rank[self.rank] if self.divided else 0

    def turn(self, rank: int, world_size: int) -> tuple[int, int]:
        """Number of a process among those that share its part, and how many these are."""
        if not self.divided:
            return rank, world_size
        part = self.of_rank[rank]
        return self.of_rank[:rank].count(part), self.of_rank.count(part)

    def offset(self, counts: Sequence[int]) -> int:
        """Number of images before this process's part, given how many each process has read."""
        return sum(n for n, part in zip(counts, self.of_rank, strict=False) if part < self.number)

    def counted(self, counts: Sequence[int]) -> "Parts":
        """The same, with the number of images in each part, given how many each process has read."""
        if not self.divided:
            return self
        items = [sum(n for n, part in zip(counts, self.of_rank, strict=True) if part == k) for k in range(self.count)]
        return replace(self, items=tuple(items))

    def quota(self, count: int) -> int:
        """Number of images of this part, if so many are taken of all parts together."""
        return count // self.count + (self.number < count % self.count)

    def describe(self) -> dict[str, Any]:
        """Plain values for the protocol; empty if every process has all the data."""
        if not self.divided:
            return {}
        items = {} if self.items is None else {"items": list(self.items)}
        return {"parts": {"of_rank": list(self.of_rank), **items}}


def check_disjoint(digests: Tensor, what: str) -> None:
    """Raise if parts are the same images in different order, which would count each of them several times.

    Args:
        digests: Digests (N, 32) of the images of all parts.
        what: Name of the images, for the message.

    Raises:
        ValueError: If most images occur more than once.
    """
    different = len(torch.unique(digests, dim=0))
    if different <= 0.6 * len(digests):
        raise ValueError(
            f"Processes have different data as {what}, but of {len(digests)} images only {different} are different: "
            "each process seems to read the same images in an order of its own. Seed the shuffling of the data set "
            "equally on all processes, do not shuffle, or give each process a part of its own."
        )
