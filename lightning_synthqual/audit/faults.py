"""Faults with doses: what an audit does to images."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_synthqual.audit import pixels, sets
from lightning_synthqual.audit.sets import Sets, Source

__all__ = ["FAULTS", "Fault", "Source", "image_generators", "named_faults"]

_OWN_DOSES = (0.25, 0.5, 1.0)
_TRIED = 16  # images on which a fault of the user's own is tried
_HOW = "A fault of your own takes `(images, dose, generator)` and returns uint8 images of the same shape."


@dataclass(frozen=True)
class Fault:
    """One fault with its doses.

    Args:
        name: Its name.
        doses: Increasing positive doses; 0, the untouched images, is left out.
        unit: What a dose counts.
        description: What the fault does, in a few words.
        function: Of pixels: ``(image, dose, generator) -> grey levels``, as in `pixels`; of a set:
            ``(sets, dose, generator) -> sources``, as in `sets`; of the user's own: ``(images, dose, generator) ->
            images``.
        of_set: Whether it changes which images the set has, and not the pixels of each image.
        own: Whether it is the user's own.

    Raises:
        ValueError: If the doses are not positive and increasing.

    Example:
        >>> fault = FAULTS["banding"]
        >>> images = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2)
        >>> fault.apply(images, 6.0, image_generators(0, [0])).unique().tolist()
        [0]
    """

    name: str
    doses: tuple[float, ...]
    unit: str
    description: str
    function: Callable[..., Any]
    of_set: bool = False
    own: bool = False

    def __post_init__(self) -> None:
        numbers = all(isinstance(dose, int | float) and math.isfinite(dose) and dose > 0 for dose in self.doses)
        if not self.doses or not numbers or any(low >= high for low, high in pairwise(self.doses)):
            raise ValueError(f"The doses of the fault {self.name!r} must be positive and increasing: {self.doses}.")

    def apply(self, images: Tensor, dose: float, generators: Sequence[torch.Generator]) -> Tensor:
        """Images with this fault of the pixels.

        Args:
            images: Untouched images, uint8 (N, 3, H, W).
            dose: How strong it is; 0 changes nothing.
            generators: One of each image (see `image_generators`).

        Returns:
            uint8 (N, 3, H, W).

        Raises:
            TypeError: If a fault of the user's own returns no uint8 tensor.
            ValueError: If it returns another shape.
        """
        if dose == 0 or not len(images):
            return images.clone()
        pairs = zip(images, generators, strict=True)
        if self.own:
            return torch.cat([self._checked(image[None], dose, generator) for image, generator in pairs])
        return torch.stack([pixels.rounded(self.function(image, dose, generator)) for image, generator in pairs])

    def choose(
        self,
        count: int,
        dose: float,
        generator: torch.Generator,
        *,
        groups: Tensor | None = None,
        reference_count: int = 0,
    ) -> list[Source]:
        """Of which images the rows of a set with this fault are made.

        Args:
            count: Number of tested images.
            dose: How strong the fault is; 0 changes nothing.
            generator: Generator of this fault, seeded equally for all doses.
            groups: Group of each tested image, integers (count,); for lost modes.
            reference_count: Number of reference images, for copies.

        Returns:
            The rows of the faulty set.

        Raises:
            ValueError: If there are too few images or groups.
        """
        if dose == 0:
            return [Source((("tested", row),)) for row in range(count)]
        rows: list[Source] = self.function(Sets(count, reference_count, groups), dose, generator)
        return rows

    def control(
        self,
        count: int,
        dose: float,
        generator: torch.Generator,
        *,
        groups: Tensor | None = None,
        reference_count: int = 0,
    ) -> list[Source]:
        """Rows of the untouched set to compare with: as many as `choose` returns, drawn at random where it drops some.

        Fewer images alone raise a Fréchet distance, and that is not the fault. Arguments and errors are those of
        `choose`.
        """
        kept = len(self.choose(count, dose, generator, groups=groups, reference_count=reference_count))
        rows = torch.randperm(count, generator=generator)[:kept].sort().values if kept < count else torch.arange(count)
        return [Source((("tested", int(row)),)) for row in rows]

    def try_out(self, images: Tensor, seed: int = 0) -> None:
        """Raise an error if a fault of the user's own does not work on these images; others are not tried.

        Args:
            images: Some untouched images, uint8 (N, 3, H, W).
            seed: Random seed.

        Raises:
            TypeError: If it returns no uint8 tensor.
            ValueError: If it returns another shape, or changes no image at its largest dose.
        """
        if not self.own:
            return
        some = images[:_TRIED]
        if torch.equal(self.apply(some, self.doses[-1], image_generators(seed, range(len(some)))), some):
            words = (
                f"The fault {self.name!r} changed none of {len(some)} images at its largest dose, {self.doses[-1]:g}."
            )
            raise ValueError(f"{words} {_HOW}")

    def _checked(self, image: Tensor, dose: float, generator: torch.Generator) -> Tensor:
        changed = self.function(image.clone(), dose, generator)
        if not isinstance(changed, Tensor) or changed.dtype != torch.uint8:
            kind = str(changed.dtype) if isinstance(changed, Tensor) else type(changed).__name__
            raise TypeError(f"The fault {self.name!r} returned {kind} instead of a uint8 tensor. {_HOW}")
        if changed.shape != image.shape:
            shapes = f"shape {tuple(changed.shape)} for images of shape {tuple(image.shape)}"
            raise ValueError(f"The fault {self.name!r} returned {shapes}. {_HOW}")
        return changed.to(image.device)


def image_generators(seed: int, indices: Iterable[int]) -> list[torch.Generator]:
    """A generator for each image, the same for any batch size, rank and dose.

    Args:
        seed: Random seed of the audit.
        indices: Positions of the images in the tested set.
    """
    return [
        torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9) % 2**63)
        for index in indices
    ]


_LEVELS, _SHARE = "grey levels", "share of the images"
_ALL = (
    Fault("blur", (0.4, 0.5, 0.7, 1.0, 2.0, 4.0), "px", "Gaussian blur", pixels.blur),
    Fault("noise", (1.0, 2.0, 4.0, 8.0, 16.0, 32.0), _LEVELS, "Gaussian noise", pixels.noise),
    Fault("jpeg", (5.0, 15.0, 30.0, 50.0, 70.0, 90.0), "below quality 100", "JPEG compression", pixels.jpeg),
    Fault("gamma", (0.02, 0.05, 0.1, 0.25, 0.5, 1.0), "above exponent 1", "darker tones", pixels.gamma),
    Fault("contrast", (0.02, 0.05, 0.1, 0.25, 0.5), "share of the contrast", "less contrast", pixels.contrast),
    Fault("hue", (5.0, 10.0, 20.0, 45.0, 90.0, 180.0), "degrees", "colours turned", pixels.hue),
    Fault("grey", (0.05, 0.1, 0.25, 0.5, 1.0), "share of the colour", "less colour", pixels.grey),
    Fault("rotation", (0.5, 1.0, 2.0, 5.0, 15.0, 45.0), "degrees", "turned about the centre", pixels.rotation),
    Fault("mirror", (0.1, 0.25, 0.5, 1.0), _SHARE, "left and right exchanged", pixels.mirror),
    Fault("shift", (0.5, 1.0, 2.0, 4.0, 8.0), "px", "moved to the right", pixels.shift),
    Fault("zoom", (0.01, 0.02, 0.05, 0.1, 0.25, 0.5), "share of the size", "enlarged", pixels.zoom),
    Fault(
        "checkerboard",
        (0.01, 0.02, 0.05, 0.1, 0.2),
        "share of the brightness",
        "pattern of transposed convolutions",
        pixels.checkerboard,
    ),
    Fault("banding", (1.0, 2.0, 3.0, 4.0, 5.0, 6.0), "bits lost", "fewer grey levels", pixels.banding),
    Fault("occlusion", (0.01, 0.02, 0.05, 0.1, 0.25), "share of the area", "a black rectangle", pixels.occlusion),
    Fault("blend", (0.05, 0.1, 0.25, 0.5, 1.0), _SHARE, "mean of two images", sets.blend, of_set=True),
    Fault(
        "mode_drop", (0.1, 0.25, 0.5, 0.75), "share of the groups", "groups are missing", sets.mode_drop, of_set=True
    ),
    Fault("duplication", (0.1, 0.25, 0.5, 0.75, 0.9), _SHARE, "repeats of others", sets.duplication, of_set=True),
    Fault("copying", (0.05, 0.1, 0.25, 0.5, 1.0), _SHARE, "copies of reference images", sets.copying, of_set=True),
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}


def named_faults(faults: Any = None) -> tuple[Fault, ...]:
    """The faults that an audit applies.

    Args:
        faults: ``None``: all of `FAULTS`. Otherwise names and `Fault` objects, or a mapping by name of ``None`` (the
            known fault), doses (the known fault with these), a callable ``(images, dose, generator) -> images`` on
            uint8 (1, 3, H, W), or of ``(callable, doses)``.

    Returns:
        The faults, in the given order.

    Raises:
        TypeError: If something else stands for a fault.
        ValueError: If a name is unknown or occurs twice, or a callable has the name of a known fault.

    Example:
        >>> [fault.name for fault in named_faults(["noise", "blur"])]
        ['noise', 'blur']
        >>> named_faults({"inverted": lambda images, dose, generator: 255 - images})[0].doses
        (0.25, 0.5, 1.0)
    """
    if faults is None:
        return _ALL
    if isinstance(faults, Mapping):
        found = [_of_mapping(name, value) for name, value in faults.items()]
    else:
        listed = [faults] if isinstance(faults, str | Fault) else list(faults)
        found = [fault if isinstance(fault, Fault) else _known(fault) for fault in listed]
    names = [fault.name for fault in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not found or twice:
        raise ValueError(
            f"`faults` names {twice[0]!r} twice." if twice else "`faults` is empty; None means all faults."
        )
    return tuple(found)


def _of_mapping(name: Any, value: Any) -> Fault:
    if isinstance(value, Fault):
        return replace(value, name=name)
    if value is None:
        return _known(name)
    if callable(value):
        return _own(name, value, _OWN_DOSES)
    if isinstance(value, Sequence) and len(value) == 2 and callable(value[0]):
        return _own(name, value[0], value[1])
    if isinstance(value, Sequence) and not isinstance(value, str):
        return replace(_known(name), doses=tuple(value))
    raise TypeError(f"`faults[{name!r}]` must be a callable, a pair of a callable and its doses, doses or None.")


def _own(name: Any, function: Callable[..., Any], doses: Any) -> Fault:
    if name in FAULTS:
        raise ValueError(f"`faults` has a callable named {name!r}, as a known fault is; give it another name.")
    return Fault(str(name), tuple(doses), "dose", str(name), function, own=True)


def _known(name: Any) -> Fault:
    if not isinstance(name, str):
        raise TypeError(f"`faults` must hold names or Fault objects, but holds {name!r}. {_HOW}")
    if name not in FAULTS:
        raise ValueError(f"`faults` names {name!r}, which is unknown. Known: {', '.join(FAULTS)}.")
    return FAULTS[name]
