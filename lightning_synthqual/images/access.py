"""Images by number, wherever they are: in a data set, stored as they were sampled, or at hand."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.store import ImageStore
from lightning_synthqual.metrics.views import ImageAccess


class DatasetImages:
    """Images of a data set, which every process can read."""

    def __init__(self, image_set: ImageSet, ranks: Ranks) -> None:
        self._image_set = image_set
        self._ranks = ranks

    def shard(self, count: int) -> list[int]:
        """Every so many-th of the first images."""
        return list(range(self._ranks.rank, count, self._ranks.world_size))

    def pick(self, indices: Sequence[int]) -> list[Tensor]:
        """Any images."""
        return self._image_set.pick(indices)

    def name(self, index: int) -> str:
        """The name of the file, or the number of the item."""
        return self._image_set.name(index)

    def fetch(self, indices: Sequence[int], size: Sequence[int] | None) -> dict[int, Tensor]:
        """Nothing: the images are read when they are drawn."""
        return {}


class SampledImages:
    """Images of a generator, of which each process has stored those that it sampled."""

    def __init__(self, store: ImageStore, ranks: Ranks) -> None:
        self._store = store
        self._ranks = ranks

    def shard(self, count: int) -> list[int]:
        """Those of the first images that this process has sampled."""
        return [index for index in self._store if index < count]

    def pick(self, indices: Sequence[int]) -> list[Tensor]:
        """Images that this process has sampled."""
        return [self._store[index] for index in indices]

    def name(self, index: int) -> str:
        """The number of the item."""
        return f"item {index}"

    def fetch(self, indices: Sequence[int], size: Sequence[int] | None) -> dict[int, Tensor]:
        """Any images, by index, on every process; every process asks for the same ones.

        Args:
            indices: Their numbers.
            size: (height, width) of all generated images, or ``None`` if they differ.
        """
        groups = [list(indices)] if size is not None else [[index] for index in indices]
        found: dict[int, Tensor] = {}
        for group in groups:
            own = [place for place, index in enumerate(group) if index in set(self._store)]
            rows = torch.stack([self._store[group[place]] for place in own]) if own else None
            if group:
                images = self._ranks.gather_rows(rows, own, len(group), torch.device("cpu"))
                found |= dict(zip(group, images, strict=True))
        return found


class FetchableImages(ImageAccess, Protocol):
    """Images of which some may be asked for by every process."""

    def fetch(self, indices: Sequence[int], size: Sequence[int] | None) -> dict[int, Tensor]:
        """Images by index, on every process, as far as they can't be read later."""
        ...


class FewImages:
    """A few images at hand, or none.

    Args:
        images: uint8 (N, 3, H, W).
    """

    def __init__(self, images: Tensor) -> None:
        self._images = images.cpu()

    def shard(self, count: int) -> list[int]:
        """All of them."""
        return list(range(min(count, len(self._images))))

    def pick(self, indices: Sequence[int]) -> list[Tensor]:
        """Images by index."""
        return [self._images[index] for index in indices]

    def name(self, index: int) -> str:
        """The number of the item."""
        return f"item {index}"
