"""What values images were seen to have, compared with what was declared of them."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor

Range = tuple[float, float]

DEFAULT_RANGE: Range = (-1.0, 1.0)
CONVENTIONS: tuple[Range, ...] = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))  # what images usually span, narrowest first

_ROUNDING = 1e-3  # in widths of the range: less than a grey level
_OVERSHOOT = 0.1  # in widths of the range: bicubic resizing overshoots by about so much
_MUCH_WIDER = 100.0  # a declared range that is so many times wider than the values' own is another scale

# Shares of the values
_STRAY = 0.001  # so few say nothing
_UNDERSHOOT = 0.2  # of the largest value, by which resizing may fall below zero
_FAINT = 0.6  # of a range: images that fill less of it have little contrast
_DOUBTFUL = 0.02  # so few of real images are worth a warning, more are an error
_UNUSUAL = 0.1  # so many of generated images are worth a warning
_MUCH = 0.25  # so many are worth a warning even if they lie beyond the range by little

_LITTLE_USED = 1 / 8  # integers that use no more of their type are of another bit depth

_MERGED: dict[str, Callable[[Any, Any], Any]] = {"low": min, "high": max, "type_limit": max}  # all else is added


@dataclass(frozen=True)
class PixelRange:
    """The values of images that are not uint8; those of parts merge by ``+``.

    Args:
        low: Smallest value.
        high: Largest value.
        count: Number of values.
        clamped: Number of values outside the declared range.
        beyond: Number of values outside it by more than an overshoot (a tenth of its width).
        outside_unit: Number of values outside (0, 1) by more than an overshoot.
        outside_signed: Number of values outside (-1, 1) by more than an overshoot.
        outside_byte: Number of values outside (0, 255) by more than an overshoot.
        type_limit: Largest value of their type if they are integers; else 0.
    """

    low: float = inf
    high: float = -inf
    count: int = 0
    clamped: int = 0
    beyond: int = 0
    outside_unit: int = 0
    outside_signed: int = 0
    outside_byte: int = 0
    type_limit: int = 0

    @classmethod
    def of(cls, values: Tensor, declared: Range) -> "PixelRange":
        """The values of a tensor; ``low`` or ``high`` is not finite if one of the values is not."""
        limits = [_widened(declared, _ROUNDING), *(_widened(each, _OVERSHOOT) for each in (declared, *CONVENTIONS))]
        count = _counted_here if values.device.type == "cpu" else _counted_there
        low, high, counts = count(values, limits)
        return cls(low, high, values.numel(), *counts)

    def __add__(self, other: "PixelRange") -> "PixelRange":
        if _NOTHING in (self, other):
            return self if other == _NOTHING else other
        one, two = vars(self), vars(other)
        return PixelRange(**{name: _MERGED.get(name, operator.add)(one[name], two[name]) for name in one})

    @property
    def clamped_share(self) -> float:
        """Share of the values that lay outside the declared range."""
        return self.clamped / self.count if self.count else 0.0

    @property
    def beyond_share(self) -> float:
        """Share of the values that lay outside the declared range by more than an overshoot."""
        return self.beyond / self.count if self.count else 0.0

    def spans(self) -> Range:
        """The conventional range that the values seem to span, else all that they span."""
        usual = self._usual(_STRAY)
        return (self.low, self.high) if usual is None else usual

    def within(self, declared: Range, stray: float) -> Range | None:
        """The conventional range that the values seem to span, if the declared one is another that contains it.

        Either the declared range goes below zero and the values do not, or they fill next to nothing of it.

        Args:
            declared: The declared range.
            stray: Share of the values that may lie elsewhere.
        """
        usual, width = self._usual(stray), declared[1] - declared[0]
        if usual is None or _width(usual) > width or self.high - self.low <= _ROUNDING * _width(usual):
            return None  # images of one value say nothing
        other_scale = width > _MUCH_WIDER * _width(usual)
        # Small values of both signs are images of little contrast, not an overshoot below zero.
        faint = self.high - self.low < _FAINT * _width(usual) and self.low < -_UNDERSHOOT * self.high
        return usual if other_scale or (declared[0] < 0 <= usual[0] and not faint) else None

    def _usual(self, stray: float) -> Range | None:
        """The narrowest conventional range that holds all but a share of the values."""
        outside = (self.outside_unit, self.outside_signed, self.outside_byte)
        for each, count in zip(CONVENTIONS, outside, strict=True):
            if count <= stray * self.count and (each[1] == 1 or self.high > _LITTLE_USED * each[1]):
                return each
        return None


_NOTHING = PixelRange()


def _width(interval: Range) -> float:
    return interval[1] - interval[0]


def _widened(interval: Range, tolerance: float) -> Range:
    margin = tolerance * _width(interval)
    return interval[0] - margin, interval[1] + margin


def _counted_here(values: Tensor, limits: Sequence[Range]) -> tuple[float, float, list[int]]:
    """Smallest and largest value, and how many lie beyond each of the limits; the ends often save the counting."""
    low, high = torch.stack(values.aminmax()).tolist()
    counts = []
    for least, most in limits:
        below = int(torch.count_nonzero(values < least)) if low < least else 0
        counts.append(below + (int(torch.count_nonzero(values > most)) if high > most else 0))
    return low, high, counts


def _counted_there(values: Tensor, limits: Sequence[Range]) -> tuple[float, float, list[int]]:
    """The same with one transfer from the device, of integers: the bits of the ends, and the counts."""
    ends = torch.stack(values.aminmax())
    counts = [torch.count_nonzero((values < least) | (values > most)) for least, most in limits]
    words = torch.int32 if ends.element_size() == 4 else torch.int64
    found = torch.cat([ends.view(words).long(), torch.stack(counts)]).cpu()
    low, high = found[:2].to(words).view(ends.dtype).tolist()
    return low, high, found[2:].tolist()


@dataclass(frozen=True)
class Declaration:
    """What was said about the values of a set of images.

    Args:
        floats: What floats span.
        integers: What integers beyond uint8 span; ``None``: the range of their type.
        argument: The argument that says so, for messages.
        assumed: Whether it says nothing about this set, so that ``floats`` is what generated images span.
    """

    floats: Range = DEFAULT_RANGE
    integers: Range | None = None
    argument: str = "image_range"
    assumed: bool = False

    def range_of(self, dtype: torch.dtype) -> Range:
        """What images of a type span."""
        if dtype.is_floating_point:
            return self.floats
        return self.integers or (0.0, float(torch.iinfo(dtype).max))

    def check(self, seen: PixelRange, what: str) -> str | None:
        """Compare the values of real images with the declaration.

        Args:
            seen: The values.
            what: Name of the images, for messages.

        Returns:
            A warning, or ``None`` if there is nothing to say.

        Raises:
            ValueError: If the values contradict the declaration. It names the argument and its right value.
        """
        if not seen.count:
            return None
        if seen.type_limit and self.integers is None:
            self._check_type(seen, what)
            return None
        found = seen.spans() if seen.beyond_share > _DOUBTFUL else seen.within(self.floats, _STRAY)
        if found is not None:
            raise ValueError(f"{self._mismatch(seen, what)}. Pass {self._remedy(seen, found)}.")
        if (found := seen.within(self.floats, _DOUBTFUL)) is not None:
            remedy = self._remedy(seen, found)
            return f"{self._mismatch(seen, what)}, and hardly any is below zero. If they span {found}, pass {remedy}."
        if seen.beyond_share > _STRAY or seen.clamped_share > _MUCH:
            return f"{self._mismatch(seen, what)}; {seen.clamped_share:.1%} of them lie beyond it and are clamped."
        return None

    def caveat(self, seen: PixelRange, what: str) -> str | None:
        """Compare the values of generated images with the declaration, which is believed.

        The text does not depend on the exact values, so that it is the same at each evaluation.

        Args:
            seen: The values.
            what: Name of the images, for messages.

        Returns:
            A warning, or ``None`` if there is nothing to say.

        Raises:
            ValueError: If the images are integers whose range is unclear.
        """
        if seen.type_limit:
            return self.check(seen, what)
        found = seen.spans() if seen.beyond_share > _UNUSUAL else seen.within(self.floats, _STRAY)
        if found is None:
            return None
        if seen.beyond_share > _UNUSUAL:
            reason = f"more than {_UNUSUAL:.0%} of the values lie beyond it and are clamped"
        elif found[0] >= 0 > self.floats[0]:
            reason = "the values never go below zero"
        else:
            reason = "the values fill less than a hundredth of it"
        remedy = self.argument_with(found) if found in CONVENTIONS else f"the range that is meant as `{self.argument}=`"
        return f"`{self.argument}={self.floats}` was declared for {what}, but {reason}. If it is wrong, pass {remedy}."

    def argument_with(self, value: Range) -> str:
        """The argument with another value, as it is to be passed."""
        text = str(value) if value in CONVENTIONS else f"({value[0]:.6g}, {value[1]:.6g})"
        return f"`{self.argument}={text}`" + (" to `Images`" if self.argument == "range" else "")

    def _check_type(self, seen: PixelRange, what: str) -> None:
        """Raise unless integers use so much of their type that it can be their range."""
        if seen.low >= 0 and seen.high > _LITTLE_USED * seen.type_limit:
            return
        bits = max(int(seen.high).bit_length(), 1)
        likely = (0, 2**bits - 1) if seen.low >= 0 else (seen.low, seen.high)
        raise ValueError(
            f"The values of {what} are integers from {seen.low:.0f} to {seen.high:.0f}, of a type that goes up to "
            f"{seen.type_limit}, and nothing says what they span. Pass {self.argument_with(likely)} if that is it, or "
            "uint8 images."
        )

    def _mismatch(self, seen: PixelRange, what: str) -> str:
        declared = f"`{self.argument}={self.floats}` was declared for {what}"
        if self.assumed:
            declared = f"No range was declared for {what}, so that of `image_range`, {self.floats}, is assumed"
        return f"{declared}, but the values go from {seen.low:.4g} to {seen.high:.4g}"

    def _remedy(self, seen: PixelRange, found: Range) -> str:
        remedy = self.argument_with(found)
        if self.assumed and self.floats == DEFAULT_RANGE:
            remedy += f", and `image_range={found}` if generated images span the same" if found in CONVENTIONS else ""
        if found not in CONVENTIONS and seen.low < 0:
            remedy += " (or, if they are normalised, `Images(data, mean=..., std=...)`)"
        return remedy


def generated_range(image_range: Range) -> Declaration:
    """The declaration of generated images; the default of ``image_range`` says nothing about integers."""
    return Declaration(image_range, None if tuple(image_range) == DEFAULT_RANGE else image_range)
