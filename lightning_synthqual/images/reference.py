"""From data to blocks of uint8: a Dataset, a DataLoader or a folder, every image once and in a fixed order."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_synthqual.images.blocks import Block, blocks, digests_of
from lightning_synthqual.images.files import FolderDataset, open_path
from lightning_synthqual.images.identity import describe, sampled, stamp_of
from lightning_synthqual.images.items import Item, Items
from lightning_synthqual.images.labels import NEEDING, label_of
from lightning_synthqual.images.parts import Parts
from lightning_synthqual.images.randomness import Stream, derived_seed, preserved_generators
from lightning_synthqual.images.ranges import DEFAULT_RANGE, Declaration, PixelRange, Range, generated_range
from lightning_synthqual.images.reader import Reader
from lightning_synthqual.images.source import Images, checked_range
from lightning_synthqual.images.state import undisturbed

_log = logging.getLogger(__name__)
_VERSION = "2"  # of what happens between a file and its uint8 pixels, and of the seeds of choices
_FEW, _MANY = 16, 1024  # images that are looked at before all are read
_LONG = 100_000  # images of a stream, after which somebody may wonder
_COMPARED = 8  # images by which the data of processes are compared


class ImageSet:
    """Images of one role as uint8 (3, H, W), each exactly once and always in the same order.

    The dataset of a DataLoader is read, not its sampler: no shuffling, no dropped batch. Random augmentations are drawn
    once per item, from a seed of (seed, index): an augmented dataset of n items is n images, the same at every reading.
    To leave the augmentations out, give a dataset without them.

    Args:
        source: Dataset (map-style or iterable), DataLoader, image folder, ``.npy`` or ``.npz`` file, or ``Images``.
        role: ``"real"``, ``"held_out"`` or ``"fake"``.
        declared: Range that was declared for this set, of floats and of integers beyond uint8; ``None``: none was.
        fallback: What floats span if none was declared.
        image_size: (height, width) to resize to by PIL's antialiased bicubic interpolation, or ``None``.
        num_images: Number of images to use, chosen at random by the seed (the first ones of an iterable dataset).
        seed: Random seed of the choice and of augmentations.
        cache_key: Name of the data, instead of a fingerprint of its content.
        cache_check: ``"full"``: data that have no fingerprint of their own are told apart by all of their pixels.
        num_workers: Number of processes that read images; ``None``: the DataLoader's own, else as many as pay.
        skip_unreadable: Whether images of a folder that cannot be read are left out.

    Attributes:
        parts: How the data are distributed over the processes; see ``compare``.

    Raises:
        TypeError: If ``source`` is none of these.
        ValueError: If there are no images.
    """

    def __init__(
        self,
        source: Any,
        role: str,
        *,
        declared: Range | None = None,
        fallback: Range = DEFAULT_RANGE,
        image_size: tuple[int, int] | None = None,
        num_images: int | None = None,
        seed: int = 0,
        cache_key: str | None = None,
        cache_check: Literal["sample", "full"] = "sample",
        num_workers: int | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        self.role = role
        self.cache_key = cache_key
        self.cache_check = cache_check
        self.images = Images.of(source)
        source, context = self.images.source, None
        if isinstance(source, DataLoader):
            num_workers = source.num_workers if num_workers is None else num_workers
            source, context = source.dataset, source.multiprocessing_context
        self.dataset: Any = open_path(source, skip_unreadable) if isinstance(source, str | Path) else source
        self.declaration = _declaration(self.images, role, declared, fallback)
        self.items = Items(self.dataset, f"`{role}`", self.images, self.declaration, image_size, seed)
        self._reader = Reader(self.items, num_workers, context)
        self.num_images = num_images
        self.parts = Parts()
        self._facts: list[dict[str, Any]] = []  # of the parts, where there are several
        self._length = None if isinstance(self.dataset, IterableDataset) else _length(self.dataset, role)
        self._choose_items()
        self._labels: dict[int, Any] = {}
        self._size: list[int] | None = None
        self._stamp: str | None = None

    def _choose_items(self) -> None:
        """Choose the items of this process's part; ``indices`` is ``None`` for an iterable dataset."""
        self.indices: list[int] | None = None
        if self._length is None:
            return
        lengths = [fact["length"] for fact in self._facts] or [self._length]
        chosen = np.array(_choose(sum(lengths), self.num_images, self.items.seed))
        starts = np.cumsum([0, *lengths])
        self._total = len(chosen)
        ends = np.searchsorted(chosen, starts)
        self.indices = (chosen[slice(*ends[self.parts.number :][:2])] - starts[self.parts.number]).tolist()
        if self.parts.divided:
            self.parts = replace(self.parts, items=tuple(np.diff(ends).tolist()))

    @property
    def skipped(self) -> list[str]:
        """Names of images that could not be read and were left out."""
        if self._facts:
            return [name for fact in self._facts for name in fact["skipped"]]
        return self.dataset.skipped if isinstance(self.dataset, FolderDataset) else []

    def name(self, position: int) -> str:
        """What the image at a position is called: its file's name, else its item number."""
        if self.parts.divided:  # another process may have it
            return f"item {position}"
        index = position if self.indices is None else self.indices[position]
        return self.dataset.name(index) if isinstance(self.dataset, FolderDataset) else f"item {index}"

    def __len__(self) -> int:
        if self.indices is None:
            raise TypeError(f"`{self.role}` is an iterable dataset, which has no length.")
        return self._total

    def compare(self, gather: Callable[[Any], list[Any]], rank: int) -> None:
        """Find out whether all processes have the same data; if not, these are parts of the set.

        Lengths and a few items are compared. To be called on every process, before anything is read.

        Args:
            gather: Returns the values that all processes pass to it, by rank; the values have to be JSON.
            rank: Number of this process.
        """
        self.parts, self._facts, self._stamp = Parts(), [], None
        facts = gather(self._describe_own())
        self._reader.processes = len(facts)
        self._stamp = facts[0]["stamp"]  # the first process's for all: data may differ where few have looked
        self.parts = Parts.of([json.dumps(fact["content"]) for fact in facts], rank)
        if self.parts.divided:
            self._facts = [facts[self.parts.of_rank.index(part)] for part in range(self.parts.count)]
            self._choose_items()

    def inspect(self) -> None:
        """Look at a few images, so that faults of the data show before all are read.

        A range that seems wrong is an error only if many more images show the same.

        Raises:
            TypeError: If an item holds no image.
            ValueError: If an image cannot be used, or the values contradict what was declared.
        """
        if self.indices is None:
            return
        with undisturbed(self), preserved_generators():
            seen = _seen(self._glance(_FEW))
            try:
                self.check_range(seen)
            except ValueError:
                self.check_range(_seen(self._glance(_MANY)))

    def check_range(self, seen: PixelRange) -> str | None:
        """Compare the values that were seen with what was declared.

        Returns:
            A warning, or ``None`` if there is nothing to say.

        Raises:
            ValueError: If real images, or integers, contradict what was declared.
        """
        check = self.declaration.caveat if self.role == "fake" else self.declaration.check
        return check(seen, f"`{self.role}`")

    def check_whole(self) -> None:
        """Raise if this process cannot read every image of the set.

        Raises:
            ValueError: If processes have different parts of it.
        """
        if self.parts.divided:
            raise ValueError(
                f"Single images and labels of `{self.role}` are needed on every process, but processes have different "
                "parts of it. Give each of them all the data, or leave out metrics that show images or pairs and "
                "`labels='data'`."
            )

    def describe(self) -> dict[str, Any]:
        """What was stated of the images, and how they are distributed over processes: for the protocol."""
        return {**self.images.describe(), **self.parts.describe()}

    def label(self, index: int) -> Any:
        """Label of item ``index``: the second entry of a tuple, or ``label`` of a dict.

        Raises:
            ValueError: If the items have no labels.
        """
        if self.indices is None:
            raise ValueError(f"{NEEDING} a map-style dataset as `{self.role}`, but it is an iterable one.")
        self.check_whole()
        if index not in self._labels:
            self._labels[index] = label_of(self.dataset, self.indices[index], self.images.key, self.role)
        return self._labels[index]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by number, where they are folders; else empty."""
        return self.dataset.classes if isinstance(self.dataset, FolderDataset) else ()

    def check_classes(self, other: "ImageSet") -> None:
        """Raise if there are no labels, or folders of classes have other names than those of another set.

        Raises:
            ValueError: It names the set, or the folders that only one of them has.
        """
        self.label(0)
        ours, theirs = set(self.class_names), set(other.class_names)
        if ours and theirs and ours != theirs:
            raise ValueError(
                f"`per_class=True` needs class folders of the same names in `{self.role}` and `{other.role}`, but only "
                f"one of them has {', '.join(sorted(ours ^ theirs)[:10])}. Rename or move the folders."
            )

    def read(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Block]:
        """Read the blocks rank, rank + world_size, ... of the set, or of this process's part of it."""
        rank, world_size = self.parts.turn(rank, world_size)
        if self.indices is None:
            yield from self._read_stream(batch_size, rank, world_size)
            return
        own = blocks(len(self.indices), batch_size)[rank::world_size]
        wanted = iter(self._reader.read([self.indices[position] for block in own for position in block]))
        for block in own:
            yield _block(block, [next(wanted) for _ in block])

    def pick(self, positions: Sequence[int]) -> list[Tensor]:
        """The images at these positions of the set, uint8 (3, H, W); a stream is read up to the last of them.

        Raises:
            ValueError: If processes have different parts of the set.
        """
        self.check_whole()
        if self.indices is not None:
            return [item.image for item in self._reader.read([self.indices[position] for position in positions])]
        found = {
            position: image
            for block in self._read_stream(1)
            for position, image in zip(block.positions, block.images, strict=True)
            if position in positions
        }
        return [found[position] for position in positions]

    def _read_stream(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Block]:
        start, pending = 0, []
        most = None if self.num_images is None else self.parts.quota(self.num_images)
        self.items.seed_generators(0)  # a stream that shuffles must do so in the same way on every process
        for index, item in enumerate(self.items.one_by_one()):
            if most is not None and index >= most:
                break
            if most is None and index == _LONG:
                _log.warning("`%s` has given %d images so far. If it has no end, pass `num_real`.", self.role, index)
            mine = index // batch_size % world_size == rank
            if mine:
                pending.append(self.items.convert(item, index))
            if len(pending) == batch_size:
                yield _block(range(index + 1 - batch_size, index + 1), pending)
                pending = []
            start = index + 1 if not pending else start
            self.items.seed_generators(index + 1)
        if pending:
            yield _block(range(start, start + len(pending)), pending)

    def _glance(self, count: int) -> list[Item]:
        """A few items: spread evenly, or the first ones of an iterable dataset."""
        if self.indices is None:
            self.items.seed_generators(0)
            return [
                self.items.convert(item, index) for index, item in enumerate(islice(self.items.one_by_one(), count))
            ]
        places = np.linspace(0, len(self.indices) - 1, min(count, len(self.indices))).astype(int)
        chosen = [self.indices[place] for place in places]
        return list(self._reader.read(chosen))

    def _describe_own(self) -> dict[str, Any]:
        """What can be compared of this process's data, and what others need to know of them."""
        with preserved_generators():
            first, second = (digests_of(item.image for item in self._glance(_COMPARED)).tolist() for _ in range(2))
        repeatable = self.indices is None or first == second  # else contents tell nothing, and indices decide
        return {
            "content": [self._length, first if repeatable else None],
            "length": self._length,
            "size": self.first_size(),
            "skipped": self.skipped,
            "stamp": self.stamp(),
        }

    def first_size(self) -> list[int] | None:
        """Height and width of the first image; ``None`` for an iterable dataset, which cannot be read twice."""
        if self._facts:
            size: list[int] | None = self._facts[0]["size"]
            return size
        if self._size is None and self.indices is not None:
            self._size = list(self.items[self.indices[0]].image.shape[1:])
        return self._size

    def holds_all(self, count: int) -> bool:
        """Whether so many images, which were read, are all that the source holds."""
        lengths = [fact["length"] for fact in self._facts] or [self._length]
        known = self._length is not None and sum(lengths) <= count
        return self.num_images is None or count < self.num_images or known

    def stamp(self) -> str | None:
        """A fingerprint that needs no reading of all pixels, of most sets.

        Of a folder or file its names, sizes and times; of a named set its name; a Hugging Face dataset's own; of others
        class, length, transforms and 256 images. ``None`` for streams, and with ``cache_check="full"`` for the others:
        see ``fingerprint_of_pixels``.
        """
        if self._facts:
            stamps = [fact["stamp"] for fact in self._facts]
            return None if None in stamps else _digest(["parts", *stamps])
        if self._stamp is None:
            content = self._content()
            stated = [self.images.describe(), self.declaration.integers, self.items.image_size, self.items.seed]
            choice = [self.num_images, None if self.indices is None else len(self.indices)]
            self._stamp = None if content is None else _digest([*content, *stated, *choice])
        return self._stamp

    def _content(self) -> list[Any] | None:
        """What distinguishes these images from others."""
        floats = self.declaration.floats
        if self.cache_key is not None:
            return ["key", self.cache_key, self.role, floats]
        if self.indices is None:
            return None
        known = stamp_of(self.dataset)
        if known is not None:
            return known if isinstance(self.dataset, FolderDataset) else [*known, floats]
        if self.cache_check == "full":
            return None
        with preserved_generators():
            images = self._reader.read([self.indices[position] for position in sampled(len(self.indices))])
            digests = digests_of(item.image for item in images)
        return ["sample", describe(self.dataset), floats, hashlib.sha256(digests.numpy().tobytes()).hexdigest()]


def _declaration(images: Images, role: str, declared: Range | None, fallback: Range) -> Declaration:
    """What was said about the values of a set, by ``Images``, by an argument, or not at all."""
    if images.range is not None:
        stated = checked_range("range", images.range)
        return Declaration(stated, stated, "range")
    if images.mean is not None:
        return Declaration((0.0, 1.0), None, "range")
    if declared is not None:
        return Declaration(declared, declared, "real_range")
    if role == "fake":
        return generated_range(fallback)
    return Declaration(fallback, None, "real_range", assumed=True)


def _seen(items: Iterable[Item]) -> PixelRange:
    return sum((item.seen for item in items), PixelRange())


def _block(positions: range, items: list[Item]) -> Block:
    return Block(positions, [item.image for item in items], _seen(items))


def _length(dataset: Any, role: str) -> int:
    if (length := length_hint(dataset, -1)) < 0 or isinstance(dataset, Mapping) or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"`{role}` must be a Dataset, a DataLoader or an image folder, but got {type(dataset).__name__}."
        )
    if not length:
        raise ValueError(f"`{role}` is empty. Give a dataset with images.")
    return length


def _choose(count: int, wanted: int | None, seed: int) -> list[int]:
    if wanted is None or wanted >= count:
        return list(range(count))
    chosen = np.random.default_rng(derived_seed(seed, Stream.SELECT)).permutation(count)[:wanted]
    return sorted(chosen.tolist())


def fingerprint_of_pixels(digests: Tensor) -> str:
    """Fingerprint of a set from the digests (N, 32) of all its images, in order."""
    return _digest(["pixels", hashlib.sha256(digests.numpy().tobytes()).hexdigest()])


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps([_VERSION, *content]).encode()).hexdigest()
