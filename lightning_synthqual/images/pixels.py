"""The customs gate: whatever pictures come as, they leave as uint8 (N, 3, H, W), checked and rounded by one rule."""

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

_FAR = 10.0  # this many widths of the declared range beyond it, no clamping makes sense


@dataclass(frozen=True)
class PixelRange:
    """What float values were seen, to be held against what was declared; ranges of parts merge by ``+``.

    Args:
        low: Smallest value.
        high: Largest value.
        negative: Number of values below zero.
        clamped: Number of values outside the declared range.
        count: Number of values.
    """

    low: float = inf
    high: float = -inf
    negative: int = 0
    clamped: int = 0
    count: int = 0

    def __add__(self, other: "PixelRange") -> "PixelRange":
        return PixelRange(
            min(self.low, other.low),
            max(self.high, other.high),
            self.negative + other.negative,
            self.clamped + other.clamped,
            self.count + other.count,
        )

    @property
    def clamped_share(self) -> float:
        """Share of the float values that lay outside the declared range."""
        return self.clamped / self.count if self.count else 0.0

    def check(self, declared: tuple[float, float], what: str, argument: str) -> str | None:
        """Hold the values against the declared range.

        Overshoot is normal for unbounded generators and is no error; a range of another scale is.

        Args:
            declared: The declared (low, high).
            what: Where the values come from, for the message.
            argument: The argument that declares the range, for the message.

        Returns:
            A warning, or ``None`` if there is nothing to say.

        Raises:
            ValueError: If the values show that another range was meant.
        """
        if not self.count:
            return None
        low, high = declared
        width = high - low
        seen = (
            f"`{argument}={declared}` was declared, but {what} returned values from {self.low:.4g} to {self.high:.4g}"
        )
        if self.high > high + _FAR * width or self.low < low - _FAR * width:
            guess = "(0.0, 255.0)" if self.low >= -1.0 and self.high <= 256.0 else f"({self.low:.4g}, {self.high:.4g})"
            raise ValueError(
                f"{seen}. Return uint8 images, or declare the range that is meant, e.g. `{argument}={guess}`."
            )
        if low >= 0 and -1.001 <= self.low < -0.5 and self.high <= 1.001 and self.negative > 0.1 * self.count:
            raise ValueError(
                f"{seen}, {self.negative / self.count:.0%} of them negative. Pass `{argument}=(-1.0, 1.0)`."
            )
        if width > 100 and self.low >= -1.001 and 0 < self.high <= 1.001 and self.high > self.low:
            meant = "(0.0, 1.0)" if self.low >= 0 else "(-1.0, 1.0)"
            raise ValueError(f"{seen}. Pass `{argument}={meant}`.")
        if low < 0 and self.low >= 0 and self.high > self.low:
            return f"{seen}, never below zero. If they span (0, 1), pass `{argument}=(0.0, 1.0)`."
        if self.clamped_share > 0.25:
            return f"{seen}; {self.clamped_share:.0%} of them were clamped. Is the range right?"
        return None


def quantise(images: Tensor, declared: tuple[float, float], what: str) -> tuple[Tensor, PixelRange]:
    """Turn pictures into uint8 as a saved PNG would: scale to [0, 255], round half to even, clamp; never wrap.

    Args:
        images: (N, C, H, W) with C of 1 or 3, uint8 or floating point.
        declared: What floats span, (low, high); ignored for uint8.
        what: Where the pictures come from, for messages.

    Returns:
        uint8 (N, 3, H, W), one channel being repeated, and the values seen (empty for uint8).

    Raises:
        TypeError: If the pictures are no tensor, or neither uint8 nor floating point.
        ValueError: If the shape is wrong, or a value is NaN or infinite.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"{what} must return a tensor (N, C, H, W), but returned {type(images).__name__}.")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"{what} must return images of shape (N, C, H, W), but returned {tuple(images.shape)}.")
    if images.shape[1] not in (1, 3):
        channels_last = images.shape[-1] in (1, 3)
        mend = "Permute them to (N, C, H, W)" if channels_last else "Drop or merge channels (alpha, for example)"
        raise ValueError(
            f"{what} returned images of shape {tuple(images.shape)}: {images.shape[1]} channels, where 1 or 3 are "
            f"expected. {mend}."
        )
    seen = PixelRange()
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise TypeError(f"{what} returned {images.dtype} images. Return uint8, or floats with a declared range.")
        images, seen = _round(images.float(), declared, what)
    return (images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1)), seen


def _round(images: Tensor, declared: tuple[float, float], what: str) -> tuple[Tensor, PixelRange]:
    low, high = declared
    finite = torch.isfinite(images).flatten(start_dim=1).all(dim=1)
    smallest, largest = images.aminmax()
    tolerance = 1e-3 * (high - low)  # less than a grey level: rounding, no overshoot
    clamped = ((images < low - tolerance) | (images > high + tolerance)).sum()
    all_finite, negative, outside = torch.stack([finite.all().long(), (images < 0).sum(), clamped]).tolist()
    if not all_finite:
        bad = int((~finite).nonzero()[0])
        raise ValueError(
            f"{what} returned NaN or infinite values, first in image {bad} of {len(images)}. "
            "Has the training diverged, or does the sampler divide by zero?"
        )
    seen = PixelRange(smallest.item(), largest.item(), negative, outside, images.numel())
    levels = (images - low) * (255.0 / (high - low))
    return levels.round_().clamp_(0, 255).to(torch.uint8), seen
