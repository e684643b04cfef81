"""What a generator is conditioned on: items of a data set by sample index, collated, with their targets and texts."""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from lightning_synthqual.images.conditions import digest, has_target, target_key, text_of
from lightning_synthqual.images.files import FolderDataset, open_path
from lightning_synthqual.images.holdings import search
from lightning_synthqual.images.identity import describe, sampled, stamp_of
from lightning_synthqual.images.randomness import Stream, derived_seed, preserved_generators, seed_global_generators
from lightning_synthqual.images.reference import ImageSet
from lightning_synthqual.images.source import Images
from lightning_synthqual.images.state import undisturbed
from lightning_synthqual.images.store import ImageStore
from lightning_synthqual.images.transfer import run_ahead

DEFAULT_SAMPLES = 10_000
Turn = tuple[int, range, bool]


class Inputs:
    """Items of a data set that a generator is conditioned on: image i is made of item i.

    The dataset of a DataLoader is read, not its sampler, and collated by the loader's own function. Random
    augmentations are drawn from a seed of (seed, item): the same at every evaluation, on any number of processes and
    for any size of the blocks.

    Args:
        source: Map-style dataset, DataLoader, image folder, list of prompts, or `Images` of these, whose ``key`` says
            where the target is.
        num_samples: Number of images to generate; 10,000, the default, also stands for as many as there are items if
            these are fewer.
        most: Number of images that are used nevertheless; ``None``: all.
        repeat: Whether items are used again where there are fewer than images.
        given: How they were given, for the protocol; ``None``: what the source is.
        seed: Random seed of augmentations.
        **reading: Further arguments of `ImageSet`, for targets.

    Attributes:
        num_samples: Number of images to generate.
        item: The first item, read for what it consists of.
        target_key: Where targets are in items; ``None`` where an item is its own target.
        targets: Targets as real images are read; ``None`` if items have none.
        has_texts: Whether items have a text.

    Raises:
        FileNotFoundError: If a folder is missing.
        TypeError: If ``source`` is nothing of the kind.
        ValueError: If there are fewer items than images.
    """

    def __init__(
        self,
        source: Any,
        *,
        num_samples: int = DEFAULT_SAMPLES,
        most: int | None = None,
        repeat: bool = False,
        given: str | None = None,
        seed: int = 0,
        **reading: Any,
    ) -> None:
        images = Images.of(source)
        source, self.collate = images.source, default_collate
        if isinstance(source, DataLoader):
            source, self.collate = source.dataset, source.collate_fn or default_collate
        self.dataset: Any = open_path(source) if isinstance(source, str | Path) else source
        self._count = _count(self.dataset)
        number = _checked_number(num_samples, self._count, repeat)
        self.num_samples = number if most is None else min(number, most)
        self._seed = seed
        self._generators = search([self.dataset]).generators
        self._kept: ImageStore | None = None
        self._places: set[int] = set()  # of the targets that are kept
        self._draws = True  # as far as is known
        self._texts: list[str] | None = None
        with undisturbed(self.dataset), preserved_generators():
            self.item = self._read(0)
            self._draws, self.fingerprint = self._examine()
        self.target_key = target_key(self.item) if images.key is None else images.key
        self.has_texts = text_of(self.item) is not None
        self.targets: ImageSet | None = None
        if has_target(self.item, self.target_key):
            wanted = replace(images, source=self.dataset, key=self.target_key)
            self.targets = ImageSet(wanted, "inputs", seed=seed, **reading)
        self.given = given or _words(self.dataset)

    def __len__(self) -> int:
        return self._count

    @property
    def protocol(self) -> dict[str, Any]:
        """Plain values: how they were given, their number and their fingerprint."""
        found = {"given": self.given, "num_items": self._count, "fingerprint": self.fingerprint}
        target = {} if self.target_key is None else {"target": self.target_key}
        return {**found, **target, **({"repeated": True} if self.num_samples > self._count else {})}

    @property
    def distinct_targets(self) -> bool:
        """Whether targets are other entries of the items than those that are taken for images without being asked."""
        return self.target_key is not None

    def compare(self, gather: Callable[[Any], list[Any]]) -> None:
        """Raise if processes are given different inputs.

        Args:
            gather: Returns the values that all processes pass to it, by rank.

        Raises:
            ValueError: It says what to do.
        """
        if len(set(gather(self.fingerprint))) > 1:
            raise ValueError(
                "Processes have different data as `inputs`, but image i is made of item i on whichever process. Give "
                "each process the whole data set, in the same order."
            )

    def check_count(self, count: int) -> None:
        """Raise unless there are as many finished images as inputs.

        Raises:
            ValueError: It names both numbers.
        """
        if count != self._count:
            raise ValueError(
                f"`fake` has {count} images and `inputs` {self._count} items, but image i belongs to item i. Give "
                "equally many, in the same order."
            )

    def ahead(self, turns: Iterable[Turn]) -> Iterator[tuple[Turn, Any]]:
        """Each turn with the batch of its positions, read while the turn before it is worked on.

        A data set that draws random numbers is read in between: it would draw from the generators that the generator
        of images uses at the same time.
        """
        if self._draws:
            return ((turn, self.batch(turn[1])) for turn in turns)
        return run_ahead(lambda turn: self.batch(turn[1]), turns)

    def batch(self, indices: Sequence[int]) -> Any:
        """The collated items of these images, in the host's memory.

        Raises:
            TypeError: If they cannot be collated.
        """
        with torch.no_grad():
            items = [self._read(index % self._count) for index in indices]
        for index, item in zip(indices, items, strict=True):
            self._keep(index % self._count, item)
        try:
            return self.collate(items)
        except (TypeError, RuntimeError, ValueError) as error:
            raise TypeError(
                f"The items {indices[0]} to {indices[-1]} of `inputs` cannot be made a batch ({error}). Give tensors "
                "of one size, or a DataLoader with a `collate_fn` of your own."
            ) from error

    def keep_targets(self) -> None:
        """Keep the targets of items that are read for batches, so that they are not read again."""
        self._kept = self._kept or ImageStore()

    def pick(self, indices: Sequence[int]) -> list[Tensor]:
        """The targets of these images, uint8 (3, H, W)."""
        assert self.targets is not None
        places = [index % self._count for index in indices]
        missing = list(dict.fromkeys(place for place in places if place not in self._places))
        found = dict(zip(missing, self.targets.pick(missing), strict=True))
        return [self._kept[place] if self._kept and place in self._places else found[place] for place in places]

    def name(self, index: int) -> str:
        """What the target of an image is called: its file's name, else its item number."""
        place = index % self._count
        return f"item {place}" if self.targets is None else self.targets.name(place)

    def texts(self) -> list[str]:
        """The texts of all images.

        Raises:
            ValueError: If an item has none.
        """
        if self._texts is None:
            with undisturbed(self.dataset), preserved_generators():
                texts = [self._text(place) for place in range(min(self.num_samples, self._count))]
            self._texts = texts
        return [self._texts[index % self._count] for index in range(self.num_samples)]

    def _text(self, place: int) -> str:
        found = text_of(self._read(place))
        if found is None:
            raise ValueError(
                f"Item {place} of `inputs` has no text, but others have. Texts are strings: items, the first string of "
                "tuples, or `text`, `caption` or `prompt` of dicts."
            )
        return found

    def _keep(self, place: int, item: Any) -> None:
        if self._kept is not None and self.targets is not None and place not in self._places:
            self._kept.add(place, self.targets.items.convert(item, place).image)
            self._places.add(place)

    def _read(self, place: int) -> Any:
        """An item, its augmentations seeded; a data set that draws nothing leaves the generators alone."""
        if self._draws:
            self._seed_generators(place)
        return self.dataset[place]

    def _seed_generators(self, place: int) -> None:
        """Seed the global generators, and those of the data set, for an item."""
        seed = derived_seed(self._seed, Stream.READ, place)
        seed_global_generators(seed)
        for generator in self._generators:
            _seed(generator, seed)

    def _examine(self) -> tuple[bool, str]:
        """Whether reading draws random numbers, and a fingerprint of the items."""
        if _is_text(self.dataset):
            return False, _digest(["texts", *map(str, self.dataset)])
        content, draws, digests = stamp_of(self.dataset), bool(self._generators), []
        for place in sampled(self._count) if content is None else [0]:
            self._seed_generators(place)
            before = _states()
            digests.append(digest(self.dataset[place]).hex())
            draws = draws or _states() != before
        return draws, _digest([*(content or ["sample", describe(self.dataset)]), *digests])


def _count(dataset: Any) -> int:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(
            "`inputs` must be a map-style Dataset, a DataLoader of one, an image folder or a list of prompts, whose "
            f"items are read by number, but got {type(dataset).__name__}."
        )
    if not len(dataset):
        raise ValueError("`inputs` is empty. Give a data set with items.")
    return len(dataset)


def _checked_number(asked: int, items: int, repeat: bool) -> int:
    """Number of images to generate."""
    if repeat or asked <= items:
        return asked
    if asked != DEFAULT_SAMPLES:
        raise ValueError(
            f"`num_samples={asked}`, but `inputs` has {items} items. Pass `num_samples={items}`, or "
            "`repeat_inputs=True` to use items several times."
        )
    return items


def _words(dataset: Any) -> str:
    if isinstance(dataset, FolderDataset):
        return "folder"
    return "prompts" if _is_text(dataset) else type(dataset).__name__


def _is_text(dataset: Any) -> bool:
    return isinstance(dataset, list | tuple) and isinstance(dataset[0], str)


def _digest(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _states() -> list[Any]:
    """The states of the global generators that data sets draw from."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    numbers = [numpy["state"]["key"].tobytes(), numpy["state"]["pos"], numpy["has_gauss"]]
    return [random.getstate(), numbers, torch.get_rng_state().numpy().tobytes()]


def _seed(generator: Any, seed: int) -> None:
    """Seed a generator of a data set's own."""
    actions: dict[type, Callable[[], Any]] = {
        torch.Generator: lambda: generator.manual_seed(seed),
        random.Random: lambda: generator.seed(seed),
        np.random.RandomState: lambda: generator.seed(seed % 2**32),
        np.random.Generator: lambda: setattr(
            generator.bit_generator, "state", type(generator.bit_generator)(seed).state
        ),
    }
    next(action for kind, action in actions.items() if isinstance(generator, kind))()
