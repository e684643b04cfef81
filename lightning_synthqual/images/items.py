"""From the items of a dataset to images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from lightning_synthqual.images.files import array_to_tensor, image_to_tensor
from lightning_synthqual.images.pixels import quantise
from lightning_synthqual.images.randomness import Stream, derived_seed, seed_global_generators
from lightning_synthqual.images.ranges import Declaration, PixelRange
from lightning_synthqual.images.source import Images, channel_values

KEYS = ("image", "images", "img", "pixel_values", "jpg")  # of a dict, in the order in which they are looked for


def image_of(item: Any, where: str, key: str | int | None = None) -> Tensor:
    """The image (C, H, W) of a dataset item.

    Args:
        item: An image, a tuple that starts with one, or a dict.
        where: Name of the item, for messages.
        key: Key or index of the image in the item; ``None``: the first of a tuple, or one of ``KEYS``.

    Raises:
        TypeError: If there is no image.
        ValueError: If it is an image that cannot be used as it is: other than 1 or 3 channels, transparent or masked.
    """
    found = _entry(item, where, key)
    try:
        if isinstance(found, Image.Image):
            return image_to_tensor(found)
        if isinstance(found, np.ndarray) and found.ndim in (2, 3):
            tensor = array_to_tensor(found)
            return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where} is an image that cannot be used: {error}.") from error
    if isinstance(found, Tensor) and found.ndim in (2, 3) and found.layout is torch.strided:
        return found[None] if found.ndim == 2 else found
    shape = f" of shape {tuple(found.shape)}" if isinstance(found, Tensor | np.ndarray) else ""
    shape += f" and layout {found.layout}" if isinstance(found, Tensor) and found.layout is not torch.strided else ""
    raise TypeError(
        f"{where} must be an image, a tuple that starts with one, or a dict with `image`, where an image is a PIL "
        f"image, an array (H, W, C) or a tensor (C, H, W); but the image is {type(found).__name__}{shape}. "
        "`Images(data, key=...)` says where in an item it is; items that are batches are read from iterable data sets."
    )


def _entry(item: Any, where: str, key: str | int | None) -> Any:
    """The part of an item that is the image."""
    if isinstance(item, Mapping):
        found = [name for name in KEYS if name in item] if key is None else [key] if key in item else []
        if not found:
            wanted = f"none of {', '.join(KEYS)}" if key is None else f"no {key!r}"
            there = ", ".join(map(repr, item)) or "(none)"
            raise TypeError(
                f"{where} is a dict with {wanted}; its keys are {there}. Pass `Images(data, key=...)` with the image's."
            )
        return item[found[0]]
    if isinstance(item, tuple | list) and item:
        place = 0 if key is None else key
        if not isinstance(place, int) or not -len(item) <= place < len(item):
            raise TypeError(f"{where} is a {type(item).__name__} of {len(item)} entries, which has no {key!r}.")
        return item[place]
    if key is not None:
        raise TypeError(f"{where} is {type(item).__name__}, which has no entries, but `key={key!r}` was given.")
    return item


def denormalised(image: Tensor, mean: list[float], std: list[float], where: str) -> Tensor:
    """Undo a normalisation by mean and standard deviation of each channel.

    Args:
        image: Floats (C, H, W).
        mean: Values that were subtracted: one number, or one per channel; empty: none.
        std: Values by which the difference was divided: one number, or one per channel.
        where: Name of the item, for messages.

    Raises:
        ValueError: If the image is of integers, or has another number of channels.
    """
    if not mean:
        return image
    channels = max(len(mean), len(std))
    if not image.is_floating_point() or channels not in (1, len(image)):
        raise ValueError(
            f"`mean` and `std` of {channels} channels were given for floats, but {where} is {image.dtype} of shape "
            f"{tuple(image.shape)}. Give one number, or as many as there are channels."
        )
    scale, shift = (torch.tensor(each, dtype=torch.float32).reshape(-1, 1, 1) for each in (std, mean))
    return image.float() * scale + shift


def resize(image: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Resize uint8 (3, H, W) to (height, width) as PIL does, antialiased bicubic; ``None``: leave it."""
    if size is None or tuple(image.shape[1:]) == size:
        return image.contiguous()
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return image_to_tensor(resized)


@dataclass(frozen=True)
class Item:
    """One image, uint8 (3, H, W), and the values that it was made of if they were not uint8."""

    image: Tensor
    seen: PixelRange


class _OfBatch(NamedTuple):
    """An image that was taken out of a batch."""

    image: Tensor


class Items(Dataset[Item]):
    """Items of a user's dataset as uint8, random augmentations seeded by index; works in worker processes too."""

    def __init__(
        self,
        dataset: Any,
        what: str,
        images: Images,
        declaration: Declaration,
        image_size: tuple[int, int] | None,
        seed: int,
    ) -> None:
        self.dataset = dataset
        self.what = what
        self.key = images.key
        self.mean, self.std = channel_values("mean", images.mean), channel_values("std", images.std)
        self.declaration = declaration
        self.image_size = image_size
        self.seed = seed

    def __getitem__(self, index: int) -> Item:
        self.seed_generators(index)
        return self.convert(self.dataset[index], index)

    def one_by_one(self) -> Iterator[Any]:
        """The items of an iterable dataset; of items that are batches (n, C, H, W) the images in them."""
        for index, item in enumerate(self.dataset):
            found = _entry(item, f"{self.what} (item {index})", self.key)
            if isinstance(found, Tensor | np.ndarray) and found.ndim == 4:
                yield from (_OfBatch(image) for image in found)
            else:
                yield item

    def seed_generators(self, index: int) -> None:
        """Seed the global generators for the augmentations of item ``index``."""
        seed_global_generators(derived_seed(self.seed, Stream.READ, index))

    def convert(self, item: Any, index: int) -> Item:
        """Take the image out of an item, quantise and resize it."""
        where = f"{self.what} (item {index})"
        found = image_of(item.image, where) if isinstance(item, _OfBatch) else image_of(item, where, self.key)
        image = denormalised(found, self.mean, self.std, where)
        quantised, seen = quantise(image[None], self.declaration, where)
        return Item(resize(quantised[0].cpu(), self.image_size), seen)
