"""From data to blocks of uint8: a Dataset, a DataLoader or a folder, every image once and in a fixed order."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_synthqual.images.blocks import Block, blocks
from lightning_synthqual.images.files import ArrayDataset, FolderDataset, open_path, picture_to_tensor
from lightning_synthqual.images.pixels import PixelRange, quantise
from lightning_synthqual.images.randomness import derived_seed, seed_global_generators

_READ, _SELECT = 3, 4  # separate the streams of random numbers
_VERSION = "1"  # of what happens between a file and its uint8 pixels


class ImageSet:
    """Real images of one role as uint8 (3, H, W), each exactly once and always in the same order.

    Of a DataLoader its dataset is read, not its sampler: no shuffling, no dropped batch. A dataset's random
    augmentations are drawn once per item, from a seed of (seed, index): an augmented dataset of n items is n images,
    the same at every reading. To leave the augmentations out, give a dataset without them.

    Args:
        source: Dataset (map-style or iterable), DataLoader, image folder, or .npy or .npz file.
        role: ``"real"``, ``"held_out"`` or ``"fake"``, for messages.
        image_range: What floats span.
        range_argument: The argument that declares ``image_range``, for messages.
        image_size: (height, width) to resize to by PIL's antialiased bicubic interpolation, or ``None``.
        num_images: Use that many, chosen at random by the seed (the first ones of an iterable dataset).
        seed: Of the choice and of augmentations.
        cache_key: Names the data, instead of a fingerprint of its content.
        skip_unreadable: Whether pictures of a folder that cannot be read are left out.

    Raises:
        TypeError: If ``source`` is none of these.
        ValueError: If there are no images.
    """

    def __init__(
        self,
        source: Any,
        role: str,
        *,
        image_range: tuple[float, float] = (-1.0, 1.0),
        range_argument: str = "image_range",
        image_size: tuple[int, int] | None = None,
        num_images: int | None = None,
        seed: int = 0,
        cache_key: str | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        self.role = role
        self.cache_key = cache_key
        self.workers: dict[str, Any] = {}
        if isinstance(source, DataLoader):
            self.workers = {
                "num_workers": source.num_workers,
                "multiprocessing_context": source.multiprocessing_context,
            }
            source = source.dataset
        self.dataset: Any = open_path(source, skip_unreadable) if isinstance(source, str | Path) else source
        self.items = _Items(self.dataset, f"`{role}`", image_range, image_size, seed)
        self.image_range = image_range
        self.range_argument = range_argument
        self.num_images = num_images
        self.indices: list[int] | None = None  # None: an iterable dataset, whose items have no numbers
        if not isinstance(self.dataset, IterableDataset):
            self.indices = _choose(_length(self.dataset, role), num_images, seed)
        self._labels: dict[int, Any] = {}

    @property
    def skipped(self) -> list[str]:
        """Names of pictures that could not be read and were left out."""
        return self.dataset.skipped if isinstance(self.dataset, FolderDataset) else []

    def __len__(self) -> int:
        if self.indices is None:
            raise TypeError(f"`{self.role}` is an iterable dataset, which has no length.")
        return len(self.indices)

    def label(self, index: int) -> Any:
        """Label of item ``index``: the second entry of a tuple, or ``label`` of a dict.

        Raises:
            ValueError: If the items have no labels.
        """
        if self.indices is None:
            raise ValueError("`labels='data'` needs a map-style dataset as `real`, but it is an iterable one.")
        if index not in self._labels:
            item = self.dataset[self.indices[index]]
            label = item.get("label") if isinstance(item, Mapping) else None
            if isinstance(item, tuple | list) and len(item) > 1:
                label = item[1]
            if label is None:
                raise ValueError(
                    "`labels='data'` needs `real` items that are tuples (image, label) or dicts with `image` and "
                    f"`label`, but they are {type(item).__name__}. Use such a dataset, or `labels='uniform'`."
                )
            self._labels[index] = label
        return self._labels[index]

    def read(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Block]:
        """Read the blocks rank, rank + world_size, ... of the set."""
        if self.indices is None:
            yield from self._read_stream(batch_size, rank, world_size)
            return
        own = blocks(len(self), batch_size)[rank::world_size]
        wanted = iter(self._load([self.indices[position] for block in own for position in block]))
        for block in own:
            yield _block(block, [next(wanted) for _ in block])

    def pick(self, positions: Sequence[int]) -> list[Tensor]:
        """The images at these positions of the set, uint8 (3, H, W); a stream is read up to the last of them."""
        if self.indices is not None:
            return [item.image for item in self._load([self.indices[position] for position in positions])]
        found = {
            position: image
            for block in self._read_stream(1)
            for position, image in zip(block.positions, block.images, strict=True)
            if position in positions
        }
        return [found[position] for position in positions]

    def _load(self, indices: list[int]) -> Iterable["Item"]:
        if not self.workers.get("num_workers"):
            return (self.items[index] for index in indices)
        return DataLoader(
            self.items, batch_size=None, sampler=indices, generator=torch.Generator().manual_seed(0), **self.workers
        )

    def _read_stream(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Block]:
        start, pending = 0, []
        self.items.seed_generators(0)  # a stream that shuffles must do it alike on every process
        for index, item in enumerate(self.dataset):
            if self.num_images is not None and index >= self.num_images:
                break
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

    def first_size(self) -> list[int] | None:
        """Height and width of the first image; ``None`` for an iterable dataset, which cannot be read twice."""
        return None if self.indices is None else list(self.items[self.indices[0]].image.shape[1:])

    def stamp(self) -> str | None:
        """A fingerprint that needs no reading of pixels: of a folder or a named set; ``None`` for others."""
        choice = [self.items.image_size, len(self.indices) if self.indices is not None else None, self.items.seed]
        if self.cache_key is not None:
            return _digest(["key", self.cache_key, self.role, self.items.image_range, self.num_images, *choice])
        if isinstance(self.dataset, FolderDataset):
            return _digest(["folder", self.dataset.stamp(), self.num_images, *choice])
        if isinstance(self.dataset, ArrayDataset):
            return _digest(["array", self.dataset.stamp(), self.items.image_range, self.num_images, *choice])
        return None


@dataclass(frozen=True)
class Item:
    """One image, uint8 (3, H, W), and the float values seen in it."""

    image: Tensor
    seen: PixelRange


class _Items(Dataset[Item]):
    """Items of a user's dataset as uint8, random augmentations seeded by index; works in worker processes too."""

    def __init__(
        self,
        dataset: Any,
        what: str,
        image_range: tuple[float, float],
        image_size: tuple[int, int] | None,
        seed: int,
    ) -> None:
        self.dataset = dataset
        self.what = what
        self.image_range = image_range
        self.image_size = image_size
        self.seed = seed

    def __getitem__(self, index: int) -> Item:
        self.seed_generators(index)
        return self.convert(self.dataset[index], index)

    def seed_generators(self, index: int) -> None:
        """Seed the global generators for the augmentations of item ``index``."""
        seed_global_generators(derived_seed(self.seed, _READ, index))

    def convert(self, item: Any, index: int) -> Item:
        """Take the image out of an item, quantise and resize it."""
        where = f"{self.what} (item {index})"
        image = image_of(item, where)
        quantised, seen = quantise(image[None], self.image_range, where)
        return Item(resize(quantised[0].cpu(), self.image_size), seen)


def image_of(item: Any, where: str) -> Tensor:
    """The image (C, H, W) of a dataset item: an image, a tuple that starts with one, or a dict with ``image``.

    Raises:
        TypeError: If there is none.
        ValueError: If it is a picture of other than 1 or 3 channels.
    """
    if isinstance(item, Mapping):
        item = item.get("image")
    elif isinstance(item, tuple | list) and item:
        item = item[0]
    if isinstance(item, Image.Image):
        try:
            return picture_to_tensor(item)
        except ValueError as error:
            raise ValueError(f"{where} is a picture that cannot be used ({error}).") from error
    if isinstance(item, np.ndarray) and item.ndim in (2, 3):
        tensor = torch.from_numpy(np.ascontiguousarray(item))
        return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    if isinstance(item, Tensor) and item.ndim in (2, 3):
        return item[None] if item.ndim == 2 else item
    shape = f" of shape {tuple(item.shape)}" if isinstance(item, Tensor | np.ndarray) else ""
    raise TypeError(
        f"{where} must be an image, a tuple that starts with one, or a dict with `image`, where an image is a PIL "
        f"picture, an array (H, W, C) or a tensor (C, H, W); but the image is {type(item).__name__}{shape}."
    )


def resize(image: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Resize uint8 (3, H, W) to (height, width) as PIL does, antialiased bicubic; ``None``: leave it."""
    if size is None or tuple(image.shape[1:]) == size:
        return image.contiguous()
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    return picture_to_tensor(picture.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _block(positions: range, items: list[Item]) -> Block:
    return Block(positions, [item.image for item in items], sum((item.seen for item in items), PixelRange()))


def _length(dataset: Any, role: str) -> int:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"`{role}` must be a Dataset, a DataLoader or an image folder, but got {type(dataset).__name__}."
        )
    if not len(dataset):
        raise ValueError(f"`{role}` is empty. Give a dataset with images.")
    return len(dataset)


def _choose(count: int, wanted: int | None, seed: int) -> list[int]:
    if wanted is None or wanted >= count:
        return list(range(count))
    chosen = np.random.default_rng(derived_seed(seed, _SELECT)).permutation(count)[:wanted]
    return sorted(chosen.tolist())


def fingerprint_of_pixels(digests: Tensor) -> str:
    """Fingerprint of a set from the digests (N, 32) of all its images, in order."""
    return _digest(["pixels", hashlib.sha256(digests.numpy().tobytes()).hexdigest()])


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps([_VERSION, *content]).encode()).hexdigest()
