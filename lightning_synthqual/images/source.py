"""Properties of a data set that have to be known to read its images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

from lightning_synthqual.images.ranges import Range


@dataclass(frozen=True, eq=False)
class Images:
    """Images with what has to be known to read them; accepted wherever images are expected.

    Args:
        source: Dataset, DataLoader, image folder, or ``.npy`` or ``.npz`` file. ``None``: the trainer's train data.
        range: What the values span, (low, high), of floats and of integers beyond uint8. ``None``: ``real_range`` or
            ``image_range`` of the evaluation; (0, 1) if ``mean`` and ``std`` are given.
        key: Where the image is in an item: a key of a dict or an index of a tuple. ``None``: the first entry of a
            tuple; of a dict ``image``, then ``images``, ``img``, ``pixel_values``, ``jpg``.
        mean: Mean that was subtracted from floats, a number or one per channel; it is added again.
        std: Standard deviation by which floats were divided, a number or one per channel; they are
            multiplied by it again.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If a range is empty, or one of ``mean`` and ``std`` is missing or impossible.

    Example:
        >>> import torch
        >>> Images([{"scan": torch.rand(1, 8, 8)}], key="scan", range=(0.0, 1.0)).key
        'scan'
    """

    source: Any
    range: Range | None = field(default=None, kw_only=True)
    key: str | int | None = field(default=None, kw_only=True)
    mean: float | Sequence[float] | None = field(default=None, kw_only=True)
    std: float | Sequence[float] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.source, Images):
            raise TypeError("`Images` takes data, but got another `Images`. State everything in one of them.")
        if self.range is not None:
            checked_range("range", self.range)
        if self.key is not None and (isinstance(self.key, bool) or not isinstance(self.key, str | int)):
            raise TypeError(f"`key` must be a string, an integer or None, but got {self.key!r}.")
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"`mean` and `std` go together, but got mean={self.mean!r} and std={self.std!r}.")
        means, stds = channel_values("mean", self.mean), channel_values("std", self.std)
        if len(means) != len(stds) and 1 not in (len(means), len(stds)):
            raise ValueError(f"`mean` has {len(means)} channels, but `std` has {len(stds)}. Give equally many.")
        if not all(value > 0 for value in stds):
            raise ValueError(f"`std` must be positive, but got {self.std!r}.")

    @classmethod
    def of(cls, source: Any) -> "Images":
        """The source as ``Images``, which it may be already."""
        return source if isinstance(source, Images) else cls(source)

    def or_from(self, source: Any) -> "Images":
        """These images, or those of ``source`` with the same properties if no source was stated."""
        return self if self.source is not None else replace(self, source=source)

    def describe(self) -> dict[str, Any]:
        """What was stated, as plain values."""
        stated = {
            "range": None if self.range is None else list(checked_range("range", self.range)),
            "key": self.key,
            "mean": channel_values("mean", self.mean) or None,
            "std": channel_values("std", self.std) or None,
        }
        return {name: value for name, value in stated.items() if value is not None}


def checked_range(name: str, value: Any) -> Range:
    """A range as two floats.

    Raises:
        TypeError: If it is not two numbers.
        ValueError: If low is not below high.
    """
    try:
        low, high = (float(edge) for edge in value)
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be two numbers (low, high), but got {value!r}.") from None
    if not (low < high and isfinite(low) and isfinite(high)):
        raise ValueError(f"`{name}` must be finite and have low < high, but got {value!r}.")
    return low, high


def channel_values(name: str, value: Any) -> list[float]:
    """One number, or one for each of three channels, as a list; empty for ``None``.

    Raises:
        TypeError: If it is neither a number nor a sequence of numbers.
        ValueError: If there are other than 1 or 3 numbers, or one is not finite.
    """
    if value is None:
        return []
    try:
        values = [float(value)] if isinstance(value, int | float) else [float(each) for each in value]
    except (TypeError, ValueError):
        raise TypeError(f"`{name}` must be a number or one number per channel, but got {value!r}.") from None
    if len(values) not in (1, 3) or not all(map(isfinite, values)):
        raise ValueError(f"`{name}` must be 1 or 3 finite numbers, but got {value!r}.")
    return values
