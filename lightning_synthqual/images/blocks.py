"""Work in fixed blocks: which images belong together, and which process does which block."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_synthqual.images.ranges import PixelRange


@dataclass(frozen=True)
class Block:
    """Consecutive images of a set.

    Args:
        positions: Their positions in the set.
        images: uint8 (3, H, W) each; a list where sizes may differ.
        seen: The values that they were made of, where these were not uint8.
    """

    positions: range
    images: Tensor | list[Tensor]
    seen: PixelRange

    def stacks(self) -> Iterator[tuple[list[int], Tensor]]:
        """The images as tensors (n, 3, H, W) of one size each, with their places in the block."""
        if isinstance(self.images, Tensor):
            yield list(range(len(self.images))), self.images
            return
        for shape in dict.fromkeys(image.shape for image in self.images):
            places = [place for place, image in enumerate(self.images) if image.shape == shape]
            yield places, torch.stack([self.images[place] for place in places])

    def part(self, number: int, count: int) -> "Block":
        """Every ``count``-th image from ``number`` on."""
        return Block(self.positions[number::count], self.images[number::count], self.seen)

    def digests(self) -> Tensor:
        """SHA-256 of each image and its shape: uint8 (n, 32)."""
        return digests_of(self.images)


def digests_of(images: Iterable[Tensor]) -> Tensor:
    """SHA-256 of each image and its shape: uint8 (n, 32)."""
    rows = [hashlib.sha256(str(tuple(x.shape)).encode() + x.numpy().tobytes()).digest() for x in images]
    return torch.tensor([list(row) for row in rows], dtype=torch.uint8)


def blocks(count: int, size: int) -> list[range]:
    """Cut ``range(count)`` into blocks of ``size``; the last may be smaller."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def own_turns(count: int, size: int, rank: int, world_size: int) -> Iterator[tuple[int, range, bool]]:
    """The blocks rank, rank + world_size, ... with equally many turns for every process.

    Yields:
        Block number, its positions, and whether it counts. A process that has no block left repeats the first one,
        which does not count: sharded models need the same number of forward passes on every process.
    """
    every = blocks(count, size)
    for first in range(0, len(every), world_size):
        number = first + rank
        yield (number, every[number], True) if number < len(every) else (0, every[0], False)
