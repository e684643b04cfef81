"""Items of a data set, read ahead by worker processes where that is faster and gives the same images."""

import copy
import io
import logging
import multiprocessing
import os
import pickle
import shutil
import sys
import time
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from lightning_synthqual.images.files import ArrayDataset, FolderDataset
from lightning_synthqual.images.holdings import LARGEST, search
from lightning_synthqual.images.items import Item, Items
from lightning_synthqual.images.ranges import PixelRange

_log = logging.getLogger(__name__)
_TRIED = 16  # items that this process reads first; also the fewest for which a worker is started
_WORTHWHILE = 1.0  # seconds that reading must take before workers are started without being asked for
_MOST = 8  # workers that are started without being asked for
_CHUNK_BYTES, _CHUNK_ITEMS = 2**23, 64  # most of one message
_SHARED_MEMORY = Path("/dev/shm")  # containers often have but 64 MiB of it
_NOTHING = len, ("",)  # in pickle's form


def default_workers(processes: int) -> int:
    """Number of workers that each of so many processes on this machine may start without being asked to."""
    if sys.platform != "linux":
        return 0  # a new interpreter would import the user's script again
    return min(_MOST, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", processes)))


@dataclass
class Reader:
    """Reads items, always the same ones in the same order, whichever process does it.

    The first items are read by this process. Workers read the rest unless they are few, or quickly read, or the data
    set holds what processes cannot share: an open file, a random generator of its own, tensors on an accelerator. What
    a worker fails to read, this process reads, so that an error is the same with and without workers.

    Args:
        items: The items.
        workers: Number of processes; ``None``: those of ``default_workers``, where that is worth it.
        context: Context of multiprocessing, or its name; ``None``: fork where it exists.
        processes: Number of processes on this machine that read at the same time.
    """

    items: Items
    workers: int | None = None
    context: Any = None
    processes: int = 1
    _said: set[str] = field(default_factory=set)

    def read(self, indices: Sequence[int]) -> Iterator[Item]:
        """The items of these numbers, in their order."""
        spent, pixels = 0.0, 1
        for index in indices[:_TRIED]:
            started = time.perf_counter()
            item = self.items[index]
            spent, pixels = spent + time.perf_counter() - started, max(pixels, item.image.numel())
            yield item
        rest = indices[_TRIED:]
        count = self._number(len(rest), spent / _TRIED)
        done = 0
        if count:
            size = min(_CHUNK_ITEMS, _chunk_bytes(count) // pixels, len(rest) // (4 * count))
            for item in self._read_ahead(rest, count, max(1, size)):
                done += 1
                yield item
        yield from (self.items[index] for index in rest[done:])

    def _number(self, items: int, seconds: float) -> int:
        """How many workers read so many items, each of which takes so long."""
        wanted = self.workers
        if wanted is None:
            wanted = default_workers(self.processes) if items * seconds > _WORTHWHILE else 0
        wanted = min(wanted, items // _TRIED)
        reason = not_shared(self.items.dataset) if wanted else None
        if reason is not None:
            self._say(f"{self.items.what} is read without worker processes: {reason}.")
            return 0
        return wanted

    def _read_ahead(self, indices: Sequence[int], workers: int, size: int) -> Iterator[Item]:
        """The items from workers, as far as these get: whoever is out of luck goes on reading here."""
        chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
        context = self.context
        if context is None and "fork" in multiprocessing.get_all_start_methods() and sys.platform == "linux":
            context = "fork"
        try:
            loader = iter(
                DataLoader(
                    _Chunks(self.items, chunks),
                    batch_size=None,
                    sampler=range(len(chunks)),
                    num_workers=workers,
                    collate_fn=_unchanged,
                    worker_init_fn=_reopen,
                    multiprocessing_context=context,
                    generator=torch.Generator().manual_seed(0),
                )
            )
        except Exception as error:  # no memory, no process, what cannot be pickled, a daemon's child
            self._say(f"{self.items.what} is read without worker processes: they cannot start ({error}).")
            return
        try:
            for chunk in chunks:
                found = _next(loader)
                if found is None:
                    yield from (self.items[index] for index in chunk)
                    self._say(f"{self.items.what} is read without worker processes from now on: one has failed.")
                    return
                yield from found.items()
        finally:
            del loader  # ends the workers, also while an error keeps this frame

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            _log.warning(message)


def _chunk_bytes(workers: int) -> int:
    """Bytes of one message: each worker has two waiting and makes a third, which must leave room for others."""
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.exists() else _CHUNK_BYTES
    return min(_CHUNK_BYTES, free // (6 * workers))


@dataclass(frozen=True)
class _Chunk:
    """Several items as one tensor: each tensor from another process takes an open file."""

    pixels: Tensor
    shapes: list[torch.Size]
    seen: list[PixelRange]

    @classmethod
    def of(cls, items: list[Item]) -> "_Chunk":
        images = [item.image for item in items]
        shapes = [image.shape for image in images]
        alike = len(set(shapes)) == 1
        # In a worker the former writes into shared memory at once.
        pixels = default_collate(images) if alike else torch.cat([image.flatten() for image in images])
        return cls(pixels, shapes, [item.seen for item in items])

    def items(self) -> Iterator[Item]:
        parts = self.pixels.flatten().split([shape.numel() for shape in self.shapes])
        for part, shape, seen in zip(parts, self.shapes, self.seen, strict=True):
            yield Item(part.view(shape), seen)


class _Chunks(Dataset[_Chunk | None]):
    """What workers read: chunk by chunk, and ``None`` for one that cannot be read."""

    def __init__(self, items: Items, chunks: list[Sequence[int]]) -> None:
        self.items = items
        self.chunks = chunks

    def __getitem__(self, number: int) -> _Chunk | None:
        try:
            return _Chunk.of([self.items[index] for index in self.chunks[number]])
        except Exception:
            return None  # the other process reads it again and sees why


def _next(loader: Iterator[_Chunk | None]) -> _Chunk | None:
    """The next chunk; ``None`` if it could not be read, or its worker was killed."""
    try:
        return next(loader)
    except Exception as error:  # of several kinds
        _log.debug("A worker has ended: %s", error)
        return None


def _unchanged(chunk: Any) -> Any:
    return chunk


def _reopen(_: int) -> None:
    """Give a worker data sets of its own without what theirs leave out of copies: files that they have opened."""
    info = get_worker_info()
    if info is not None and isinstance(info.dataset, _Chunks):
        items = copy.copy(info.dataset.items)
        items.dataset = _own_copy(items.dataset)
        info.dataset.items = items


def _own_copy(dataset: Any) -> Any:
    """A data set and those that it wraps, copied without their data."""
    if isinstance(dataset, list) and len(dataset) <= LARGEST and all(isinstance(each, Dataset) for each in dataset):
        return [_own_copy(each) for each in dataset]
    if not isinstance(dataset, Dataset):
        return dataset
    own = copy.copy(dataset)
    vars(own).update({name: _own_copy(value) for name, value in vars(own).items()})
    return own


def not_shared(dataset: Any) -> str | None:
    """Why processes cannot read a data set at the same time as one alone would; ``None`` if they can.

    What can be pickled can be shared: files, connections and locks cannot. Code and the content of tensors and arrays,
    which would take long, are passed over.
    """
    if isinstance(dataset, FolderDataset | ArrayDataset):
        return None
    if search([dataset]).generators:
        return "it holds a random generator, whose numbers would depend on who reads"
    try:
        _Shareable(_Nowhere()).dump(dataset)
    except Exception as error:  # of any kind: what objects raise that cannot be pickled
        return f"it holds what processes cannot share ({error})"
    return None


class _Shareable(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.device.type != "cpu":
                raise TypeError(f"a tensor on {value.device}")
            return _NOTHING
        if isinstance(value, types.FunctionType | type) or type(value).__module__ == "numpy":
            return _NOTHING
        return NotImplemented


class _Nowhere(io.RawIOBase):
    """A file that keeps nothing."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return memoryview(data).nbytes
