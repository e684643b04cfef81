"""Pictures to features on all processes together: every block once, every picture through each extractor once."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_synthqual.distributed import Ranks
from lightning_synthqual.extractors.base import EXTRACTION_BATCH, Extractor
from lightning_synthqual.images.blocks import Block
from lightning_synthqual.images.kept import KeptImages
from lightning_synthqual.images.pixels import PixelRange
from lightning_synthqual.reporting.progress import Progress, Silent

_MOST_WAITING = 4 * EXTRACTION_BATCH  # pictures of many different sizes must not pile up


@dataclass(frozen=True)
class Extracted:
    """What became of a set of images; the same on every process, but for the seconds.

    Args:
        count: Number of images.
        features: (N, D) by extractor and output name.
        shown: The first images, if they are of one size.
        sizes: The (height, width) that occur.
        seen: The float values that occur.
        digests: uint8 (N, 32), if they were asked for.
        seconds: Of this process, for drawing (or reading) and for extraction.
    """

    count: int
    features: dict[str, dict[str, Tensor]]
    shown: Tensor | None
    sizes: list[list[int]]
    seen: PixelRange
    digests: Tensor | None
    seconds: dict[str, float]

    @property
    def size(self) -> list[int] | None:
        """The common (height, width), or ``None`` if sizes differ."""
        return self.sizes[0] if len(self.sizes) == 1 else None


class _Stack(NamedTuple):
    """Pictures of one size that wait for the extractors."""

    positions: list[int]
    images: Tensor
    digests: Tensor | None


@dataclass
class _Share:
    """What this process has extracted so far."""

    extractors: Mapping[str, Extractor]
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
        """Take a block in; pictures of one size wait until they fill a pass of the extractors."""
        self.seen += block.seen
        digests = block.digests() if digest else None
        for places, images in block.stacks():
            size = (images.shape[2], images.shape[3])
            self.sizes.add(size)
            positions = [block.positions[place] for place in places]
            stack = _Stack(positions, images.to(self.device), digests[places] if digests is not None else None)
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
        """Put the waiting pictures of a size through every extractor."""
        stacks = self.waiting.pop(size)
        images = torch.cat([stack.images for stack in stacks])
        for stack in stacks:
            self.positions += stack.positions
            if stack.digests is not None:
                self.digests.append(stack.digests)
        for name, extractor in self.extractors.items():
            for output, rows in extractor(images).items():
                self.rows.setdefault((name, output), _Rows(self.expected)).add(rows)

    def show(self, block: Block, count: int) -> None:
        """Keep those of the first ``count`` images that are in the block."""
        for position, image in zip(block.positions, block.images, strict=True):
            if position < count:
                self.shown[position] = image.cpu()


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


def _joined(parts: list[Tensor]) -> Tensor | None:
    return torch.cat(parts) if parts else None


def extract(
    blocks: Iterator[Block],
    extractors: Mapping[str, Extractor],
    ranks: Ranks,
    device: torch.device,
    *,
    stage: str,
    show: int = 0,
    digest: bool = False,
    keep: KeptImages | None = None,
    keep_first: int | None = None,
    progress: Progress | None = None,
    total: int | None = None,
) -> Extracted:
    """Extract this process's blocks and bring all features together.

    Args:
        blocks: The blocks that are this process's.
        extractors: By name; may be empty.
        ranks: The processes.
        device: Where to extract and where to put the features.
        stage: What is being done, for messages.
        show: How many of the first images to keep.
        digest: Whether to hash the images.
        keep: Where to keep this process's images, to look at them again.
        keep_first: Keep those of so many first images alone.
        progress: Where to show how far it is.
        total: Number of images of all processes, if it is known.

    Returns:
        The features of all processes.
    """
    expected = 0 if total is None else -(-total // ranks.world_size)
    share, seconds = _Share(extractors, device, expected), {stage: 0.0, "extraction": 0.0}
    showing = (progress or Silent()).stage(stage, total)
    with ranks.together(stage), showing as advance:
        started = time.perf_counter()
        for block in blocks:
            drawn = time.perf_counter()
            share.add(block, digest)
            share.show(block, show)
            if keep is not None:
                for position, image in zip(block.positions, block.images, strict=True):
                    if keep_first is None or position < keep_first:
                        keep.add(position, image)
            seconds[stage] += drawn - started
            started = time.perf_counter()
            seconds["extraction"] += started - drawn
            advance(len(block.positions) * ranks.world_size)  # the others are about as far
        share.finish()
        seconds["extraction"] += time.perf_counter() - started
        facts = {
            "count": len(share.positions),
            "seen": asdict(share.seen) if share.seen.count else None,
            "sizes": sorted(share.sizes),
            "outputs": list(share.rows),
        }
    everyone = ranks.gather_objects(facts)
    count = sum(fact["count"] for fact in everyone)
    sizes = sorted({tuple(size) for fact in everyone for size in fact["sizes"]})
    seen = sum((PixelRange(**fact["seen"]) for fact in everyone if fact["seen"]), PixelRange())

    features: dict[str, dict[str, Tensor]] = {name: {} for name in extractors}
    for name, output in dict.fromkeys(tuple(output) for fact in everyone for output in fact["outputs"]):
        own = share.rows.pop((name, output), None)
        features[name][output] = ranks.gather_rows(own.all() if own else None, share.positions, count, device)
    cpu = torch.device("cpu")
    digests = None
    if digest and count:
        digests = ranks.gather_rows(_joined(share.digests), share.positions, count, cpu)
    shown = None
    if show and count and len(sizes) == 1:
        pictures = [image[None] for image in share.shown.values()]
        shown = ranks.gather_rows(_joined(pictures), list(share.shown), min(show, count), cpu)
    return Extracted(count, features, shown, [list(size) for size in sizes], seen, digests, seconds)
