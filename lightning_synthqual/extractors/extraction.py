"""Images to features on all processes: every block once, every image through each extractor once."""

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.extractors.base import EXTRACTION_BATCH
from lightning_synthqual.images.blocks import Block
from lightning_synthqual.images.parts import Parts
from lightning_synthqual.images.pixels import PixelRange
from lightning_synthqual.images.store import ImageStore
from lightning_synthqual.images.transfer import to_device
from lightning_synthqual.timing import Stopwatch

_MOST_WAITING = 4 * EXTRACTION_BATCH  # images of many different sizes must not pile up

Extracting = Callable[[Tensor], dict[str, Tensor]]
Stage = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Extracted:
    """Features of a set of images and what was seen of them; the same on every process, but for the seconds.

    Args:
        count: Number of images.
        features: (N, D) by extractor and output name.
        shown: The first images, if they are of one size.
        sizes: The (height, width) that occur.
        seen: The float values that occur.
        digests: uint8 (N, 32), if they were asked for.
        counts: Number of images that each process has extracted.
        seconds: Of this process, for drawing (or reading) and for extraction.
    """

    count: int
    features: dict[str, dict[str, Tensor]]
    shown: Tensor | None
    sizes: list[list[int]]
    seen: PixelRange
    digests: Tensor | None
    counts: list[int]
    seconds: dict[str, float]

    @property
    def size(self) -> list[int] | None:
        """The common (height, width), or ``None`` if sizes differ."""
        return self.sizes[0] if len(self.sizes) == 1 else None


class _Stack(NamedTuple):
    """Images of one size that wait for the extractors."""

    positions: list[int]
    images: Tensor
    digests: Tensor | None


@dataclass
class _Shard:
    """What this process has extracted so far."""

    extractors: Mapping[str, Extracting]
    device: torch.device
    expected: int
    positions: list[int] = field(default_factory=list)
    rows: dict[tuple[str, str], "_Rows"] = field(default_factory=dict)
    digests: list[Tensor] = field(default_factory=list)
    shown: dict[int, Tensor] = field(default_factory=dict)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    seen: PixelRange = field(default_factory=PixelRange)
    waiting: dict[tuple[int, int], list[_Stack]] = field(default_factory=lambda: defaultdict(list))

    def add(self, block: Block, digest: bool) -> None:
        """Take a block in; images of one size wait until they fill a pass of the extractors."""
        self.seen += block.seen
        digests = block.digests() if digest else None
        for places, images in block.stacks():
            size = (images.shape[2], images.shape[3])
            self.sizes.add(size)
            positions = [block.positions[place] for place in places]
            stack = _Stack(positions, to_device(images, self.device), digests[places] if digests is not None else None)
            self.waiting[size].append(stack)
            if self._count(size) >= EXTRACTION_BATCH:
                self._extract(size)
            elif sum(map(self._count, self.waiting)) >= _MOST_WAITING:
                self._extract(max(self.waiting, key=self._count))

    def finish(self) -> None:
        """Extract what still waits."""
        for size in list(self.waiting):
            self._extract(size)

    def _count(self, size: tuple[int, int]) -> int:
        return sum(len(stack.positions) for stack in self.waiting[size])

    def _extract(self, size: tuple[int, int]) -> None:
        """Put the waiting images of a size through every extractor."""
        stacks = self.waiting.pop(size)
        images = torch.cat([stack.images for stack in stacks])
        for stack in stacks:
            self.positions += stack.positions
            if stack.digests is not None:
                self.digests.append(stack.digests)
        for name, extractor in self.extractors.items():
            for output, rows in extractor(images).items():
                self.rows.setdefault((name, output), _Rows(self.expected)).add(rows)

    def shift(self, offset: int) -> None:
        """Move every position, where the images follow those of other processes."""
        self.positions = [position + offset for position in self.positions]
        self.shown = {position + offset: image for position, image in self.shown.items()}


class _Rows:
    """Rows that come bit by bit, written into one block of memory.

    Small tensors that are kept while large ones come and go would fragment it.

    Args:
        expected: How many rows there will be; 0 if that is not known.
    """

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._block = torch.empty(0)
        self._filled = 0

    def add(self, rows: Tensor) -> None:
        """Take rows (n, D) in."""
        end = self._filled + len(rows)
        if end > len(self._block):
            capacity = 2 * end if self._filled else max(self._expected, end)
            block = rows.new_empty((capacity, *rows.shape[1:]))
            if self._filled:
                block[: self._filled] = self._block[: self._filled]
            self._block = block
        self._block[self._filled : end] = rows
        self._filled = end

    def all(self) -> Tensor:
        """The rows (N, D)."""
        return self._block[: self._filled]


def _ended(blocks: Iterator[Block]) -> AbstractContextManager[Any]:
    """End whoever makes the blocks, and with it threads and processes, at once also after an error."""
    return closing(blocks) if isinstance(blocks, Generator) else nullcontext()


def _joined(parts: list[Tensor]) -> Tensor | None:
    return torch.cat(parts) if parts else None


@dataclass(frozen=True)
class Wanted:
    """What is kept of a set besides its features.

    Args:
        show: Number of the first images to keep.
        digest: Whether the images are hashed.
        store: Where this process's images are kept, to look at them again; ``None``: nowhere.
        stored: Number of the first images that are kept there; ``None``: all.
        on_host: Whether the features of all processes are put together on the CPU.
    """

    show: int = 0
    digest: bool = False
    store: ImageStore | None = None
    stored: int | None = None
    on_host: bool = False

    def keep(self, block: Block, shown: dict[int, Tensor]) -> None:
        """Put a block's images into the store and among those that are shown, as far as they belong there."""
        stored = 0 if self.store is None else inf if self.stored is None else self.stored
        count = sum(position < max(self.show, stored) for position in block.positions)
        if not count:
            return
        first = block.images[:count]
        images = first.cpu() if isinstance(first, Tensor) else first  # one transfer for all
        for position, image in zip(block.positions, images, strict=False):
            if position < self.show:
                shown[position] = image
            if self.store is not None and position < stored:
                self.store.add(position, image)


@dataclass(frozen=True)
class Extraction:
    """Extracts the features of a set of images on all processes.

    Args:
        extractors: Extractors by name; may be none.
        ranks: The processes.
        device: Device for extraction and for the features.
        wanted: What is kept besides the features.
        parts: How the images are distributed over the processes; positions count within a part.
    """

    extractors: Mapping[str, Extracting]
    ranks: Ranks
    device: torch.device
    wanted: Wanted = field(default_factory=Wanted)
    parts: Parts | None = None

    def run(self, blocks: Iterator[Block], stage: str, total: int | None, progress: Stage) -> Extracted:
        """Extract this process's blocks and gather all features.

        Args:
            blocks: The blocks that are this process's.
            stage: Name of the stage, for messages and timings.
            total: Number of images of all processes, if it is known.
            progress: Function ``(stage, total) -> context manager`` that yields ``advance(count)``.

        Returns:
            The features of all processes.
        """
        expected = 0 if total is None else -(-total // self.ranks.world_size)
        shard = _Shard(self.extractors, self.device, expected)
        with self.ranks.synchronized(stage), progress(stage, total) as advance, _ended(blocks):
            seconds = self._take_in(blocks, shard, stage, advance)
            facts = {
                "count": len(shard.positions),
                "seen": asdict(shard.seen) if shard.seen.count else None,
                "sizes": sorted(shard.sizes),
                "outputs": list(shard.rows),
            }
        return self._gathered(shard, self.ranks.gather_objects(facts), seconds)

    def _take_in(
        self, blocks: Iterator[Block], shard: _Shard, stage: str, advance: Callable[[int], None]
    ) -> dict[str, float]:
        """Extract the blocks; returns the seconds of waiting for them and of extraction."""
        watch = Stopwatch(self.device)
        for block in blocks:
            watch.lap(stage)
            shard.add(block, self.wanted.digest)
            self.wanted.keep(block, shard.shown)
            watch.lap("extraction")
            advance(len(block.positions) * self.ranks.world_size)  # the others are about as far
        watch.lap(stage)
        shard.finish()
        watch.lap("extraction")
        return watch.seconds()

    def _gathered(self, shard: _Shard, facts: list[Any], seconds: dict[str, float]) -> Extracted:
        """What all processes have extracted, given the facts that each of them states."""
        counts = [fact["count"] for fact in facts]
        count, cpu, wanted = sum(counts), torch.device("cpu"), self.wanted
        if self.parts is not None and self.parts.divided:
            shard.shift(self.parts.offset(counts))
        sizes = sorted({tuple(size) for fact in facts for size in fact["sizes"]})
        features: dict[str, dict[str, Tensor]] = {name: {} for name in self.extractors}
        for name, output in dict.fromkeys(tuple(output) for fact in facts for output in fact["outputs"]):
            own = shard.rows.pop((name, output), None)
            rows = own.all() if own else None
            home = cpu if wanted.on_host else self.device
            features[name][output] = self.ranks.gather_rows(rows, shard.positions, count, home)
        digests = shown = None
        if wanted.digest and count:
            digests = self.ranks.gather_rows(_joined(shard.digests), shard.positions, count, cpu)
        if wanted.show and count and len(sizes) == 1:
            first = {position: image[None] for position, image in shard.shown.items() if position < wanted.show}
            images = _joined(list(first.values()))
            shown = self.ranks.gather_rows(images, list(first), min(wanted.show, count), cpu)
        seen = sum((PixelRange(**fact["seen"]) for fact in facts if fact["seen"]), PixelRange())
        return Extracted(count, features, shown, [list(size) for size in sizes], seen, digests, counts, seconds)
