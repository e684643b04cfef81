"""Single images of a set, wherever they are: kept by the process that drew them, or in a data set."""

import base64
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.images.kept import KeptImages
from lightning_synthqual.images.reference import ImageSet


class Pictures(Protocol):
    """Access to the images of a set by position, uint8 (3, H, W)."""

    def own(self, count: int) -> list[int]:
        """Which of the first ``count`` images this process is to work on; each belongs to one process."""
        ...

    def pick(self, positions: Sequence[int]) -> list[Tensor]:
        """Images that this process has at hand."""
        ...

    def shared(self, positions: Sequence[int]) -> list[Tensor]:
        """Any images; every process asks for the same ones."""
        ...


class Drawn:
    """Images of a generator, which each process has kept of its own."""

    def __init__(self, kept: KeptImages, ranks: Ranks) -> None:
        self._kept = kept
        self._ranks = ranks

    def own(self, count: int) -> list[int]:
        """Those of the first images that this process has drawn."""
        return [position for position in self._kept if position < count]

    def pick(self, positions: Sequence[int]) -> list[Tensor]:
        """Images that this process has drawn."""
        return [self._kept[position] for position in positions]

    def shared(self, positions: Sequence[int]) -> list[Tensor]:
        """Any images; every process asks for the same ones."""
        own = {position: self._kept[position] for position in set(self._kept).intersection(positions)}
        packed = {
            str(position): [list(image.shape), base64.b64encode(image.numpy().tobytes()).decode()]
            for position, image in own.items()
        }
        found: dict[str, Any] = {}
        for part in self._ranks.gather_objects(packed):
            found |= part
        return [_unpack(*found[str(position)]) for position in positions]


class Filed:
    """Images of a data set, which every process can read."""

    def __init__(self, image_set: ImageSet, ranks: Ranks) -> None:
        self._image_set = image_set
        self._ranks = ranks

    def own(self, count: int) -> list[int]:
        """Every so many-th of the first images."""
        return list(range(self._ranks.rank, count, self._ranks.world_size))

    def pick(self, positions: Sequence[int]) -> list[Tensor]:
        """Any images."""
        return self._image_set.pick(positions)

    shared = pick


def _unpack(shape: list[int], content: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(content)), dtype=torch.uint8).view(shape)
