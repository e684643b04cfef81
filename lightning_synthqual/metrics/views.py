"""What metrics are handed: sets of images with their features, and the means to work with them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_synthqual.metrics.figures import Role
from lightning_synthqual.metrics.shard import Shard


class ImageAccess(Protocol):
    """The images of a set, uint8 (3, H, W) each."""

    def shard(self, count: int) -> list[int]:
        """Which of the first ``count`` images this process is to work on; each belongs to one process."""
        ...

    def pick(self, indices: Sequence[int]) -> list[Tensor]:
        """Images that belong to this process (of real sets: any)."""
        ...

    def name(self, index: int) -> str:
        """What an image is called: the name of its file, else the number of the item."""
        ...


@dataclass(frozen=True)
class Labels:
    """The classes of a set's images, and the names of classes where these have any.

    Args:
        rows: Numbers of the classes (N,), int64, on the CPU.
        names: Names by number; empty: numbers are their names.
    """

    rows: Tensor
    names: Sequence[str] = ()

    def of(self, number: int) -> Tensor:
        """Positions of the images of a class."""
        return (self.rows == number).nonzero().flatten()

    def name(self, number: int) -> str | int:
        """What a class is called."""
        return self.names[number] if self.names else number


@dataclass(frozen=True)
class SetView:
    """A set of images as metrics see it.

    Args:
        role: Name of the set.
        features: Features (N, D) by extractor and by output.
        embeddings: The output that distances compare, by extractor.
        images: The images.
        size: Their (height, width), if it is the same for all and known.
        count: Number of images.
        labels: Their classes, where a metric looks at them.
    """

    role: Role
    features: Mapping[str, Mapping[str, Tensor]]
    embeddings: Mapping[str, str]
    images: ImageAccess
    size: tuple[int, int] | None
    count: int
    labels: Labels | None = field(default=None, kw_only=True)

    def rows(self, extractor: str, output: str | None = None) -> Tensor:
        """Features (N, D) of one extractor; ``output=None``: those that distances compare.

        Raises:
            ValueError: If the extractor does not give the output.
        """
        output, outputs = output or self.embeddings[extractor], self.features[extractor]
        if output not in outputs:
            raise ValueError(f"Extractor {extractor!r} has no output {output!r}; it gives {', '.join(outputs)}.")
        return outputs[output]


class PathSource(Protocol):
    """A generator along one kind of path: pairs of images whose latents lie a small step apart.

    Images are float32 (n, 3, H, W) on [0, 255], beyond which they may reach.
    """

    def check(self) -> tuple[Tensor, Tensor, list[str]]:
        """Two pairs of steps of no length, and warnings.

        Raises:
            TypeError: If the generator does not return float images.
            ValueError: If a part of it is missing, or equal latents do not give equal images.
        """
        ...

    def pairs(self, count: int) -> Iterator[tuple[Sequence[int], Tensor, Tensor]]:
        """This process's part of ``count`` pairs: their numbers, and the images at both ends."""
        ...


class TargetAccess(Protocol):
    """What generated images are to look like, uint8 (3, H, W) each, by the number of the generated image."""

    def pick(self, indices: Sequence[int]) -> list[Tensor]:
        """Any targets."""
        ...


class TextAccess(Protocol):
    """The texts that generated images are made of, by the number of the image."""

    def pick(self, indices: Sequence[int]) -> list[str]:
        """Any texts."""
        ...

    def features(self, extractor: str) -> Tensor:
        """Embeddings (M, D) of all texts, on the CPU, in the space of an extractor of images; computed once a run."""
        ...

    def truncated(self, extractor: str) -> int:
        """How many texts are longer than the extractor's text network reads."""
        ...


@dataclass(frozen=True)
class Generated(SetView):
    """Generated images, the generator they are from, and what it was given.

    Args:
        targets: What the images are to look like; ``None`` if that is not known.
        texts: The texts that they are made of; ``None`` if there are none.
        paths: Function that gives the paths ``(space, sampling, options)`` of the generator; ``None`` for images
            without one.
    """

    paths: Callable[[str, str, Mapping[str, Any]], PathSource] | None = None
    targets: TargetAccess | None = None
    texts: TextAccess | None = None


@dataclass(frozen=True)
class RealSets:
    """The real images: the reference, and training and held-out images, of which one is the reference."""

    reference: SetView | None = None
    train: SetView | None = None
    held_out: SetView | None = None


def _pass(count: int) -> None:
    """Show nothing."""


@contextmanager
def _silent(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    yield _pass


def _ignore(message: str) -> None:
    """Say nothing."""


def _all_rows(rows: Tensor | None, indices: Sequence[int], count: int) -> Tensor:
    """The rows in the order of their indices, where one process has them all."""
    assert rows is not None
    return rows[torch.tensor(indices, dtype=torch.int64).argsort().to(rows.device)]


@dataclass(frozen=True)
class Runtime:
    """What a metric may use while it works; the default is one process on the CPU.

    Args:
        shard: This process's part of the rows.
        device: Device for images and features.
        networks: Pair networks that the metric asked for, by name.
        gather: Function ``(rows (n, ...) or None, their indices, number of all rows) -> all rows``.
        progress: Function ``(name, total) -> context manager`` that yields ``advance(count)``.
        warn: Function that gives a warning once.
        smoke_test: Whether only a few images are used, so that costly loops may be shortened.
        shared: Where metrics of the same evaluation keep what they have in common, each under a key of its own.
    """

    shard: Shard = field(default_factory=Shard)
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))
    networks: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(default_factory=dict)
    gather: Callable[[Tensor | None, Sequence[int], int], Tensor] = _all_rows
    progress: Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]] = _silent
    warn: Callable[[str], None] = _ignore
    smoke_test: bool = False
    shared: dict[Any, Any] = field(default_factory=dict, compare=False)
