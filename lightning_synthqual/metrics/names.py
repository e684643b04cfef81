"""The catalogue: every metric name, and which scalar of which family it stands for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from lightning_synthqual.metrics.families import (
    CMMD,
    DENSITY,
    FEATURE_SPACE,
    FID50K,
    FID50K_FULL,
    FRECHET,
    INCEPTION,
    IS50K,
    KERNEL,
    KID50K_FULL,
    MANIFOLD,
    MEMORIZATION,
    PAIRS,
    PATH_LENGTH,
    RBF,
    Family,
    Options,
    Study,
    Walk,
)
from lightning_synthqual.metrics.memorization import Memorization
from lightning_synthqual.metrics.path_length import PUBLISHED

Direction = Literal["min", "max"]
COMPANIONS = ("_std", "_floor", "_gap")  # what is reported beside a metric, under its name with one of these endings


@dataclass(frozen=True)
class Entry:
    """A catalogue line.

    Args:
        family: What computes it.
        value: Which of the family's scalars it is.
        direction: ``"min"`` if lower is better, ``"max"`` if higher is, ``None`` if neither.
        extractor: Whose features the bare name stands for, or ``None`` if the name needs a suffix, or no features.
        suffixed: Whether ``<name>_<extractor>`` exists.
    """

    family: Family | Study | Walk
    value: str
    direction: Direction | None
    extractor: str | None = None
    suffixed: bool = False

    @property
    def bare(self) -> bool:
        """Whether the name without an extractor's exists."""
        return self.extractor is not None or not self.suffixed


@dataclass(frozen=True)
class Metric:
    """A requested metric: the name under which it is reported, its catalogue line, and whose features it reads."""

    name: str
    entry: Entry
    extractor: str | None


_COPYING: dict[str, Direction] = {"closer_to_train": "min", "copy_fraction": "min", "authenticity": "max"}
CATALOGUE: dict[str, Entry] = {
    "fid": Entry(FRECHET, "distance", "min", extractor="inception"),
    "fd": Entry(FRECHET, "distance", "min", suffixed=True),
    "kid": Entry(KERNEL, "distance", "min", extractor="inception"),
    "kid_rbf": Entry(RBF, "distance", "min", extractor="inception"),
    "kd": Entry(KERNEL, "distance", "min", suffixed=True),
    "kd_rbf": Entry(RBF, "distance", "min", suffixed=True),
    "cmmd": Entry(CMMD, "distance", "min", extractor="clip"),
    "isc": Entry(INCEPTION, "score", "max", extractor="inception"),
    "precision": Entry(MANIFOLD, "precision", "max", extractor="inception", suffixed=True),
    "recall": Entry(MANIFOLD, "recall", "max", extractor="inception", suffixed=True),
    "density": Entry(DENSITY, "density", "max", extractor="inception", suffixed=True),
    "coverage": Entry(DENSITY, "coverage", "max", extractor="inception", suffixed=True),
    "fid50k": Entry(FID50K, "distance", "min", extractor="inception"),
    "fid50k_full": Entry(FID50K_FULL, "distance", "min", extractor="inception"),
    "kid50k_full": Entry(KID50K_FULL, "distance", "min", extractor="inception"),
    "is50k": Entry(IS50K, "score", "max", extractor="inception"),
    **{
        name: Entry(MEMORIZATION, name, _COPYING.get(name), extractor="dreamsim", suffixed=True)
        for name in Memorization._fields
    },
    "pairs": Entry(PAIRS, "pairs", None, extractor="dreamsim", suffixed=True),
    **{name: Entry(PATH_LENGTH, name, "min") for name in ("ppl", *PUBLISHED)},
    "feature_space": Entry(FEATURE_SPACE, "feature_space", None, extractor="dreamsim", suffixed=True),
}
# Names that stand for several, with a suffix as well as without.
GROUPS: dict[str, tuple[str, ...]] = {"memorization": Memorization._fields, "pairs": ("pairs", "feature_space")}


def resolve(names: Iterable[str], extractors: Iterable[str]) -> tuple[Metric, ...]:
    """Look requested metric names up in the catalogue.

    Args:
        names: For example ``("fid", "kd_wavelet", "recall")``.
        extractors: The known extractor names, the user's own included.

    Raises:
        TypeError: If ``names`` is one string.
        ValueError: For an unknown name (the nearest known one is suggested), an unknown extractor, or no name at all.

    Example:
        >>> [(metric.name, metric.extractor) for metric in resolve(["fid", "kd_wavelet"], ["inception", "wavelet"])]
        [('fid', 'inception'), ('kd_wavelet', 'wavelet')]
    """
    if isinstance(names, str):
        raise TypeError(f"`metrics` must be a sequence of names, but got one string. Use `metrics=({names!r},)`.")
    unique = tuple(dict.fromkeys(member for name in names for member in _members(name)))
    if not unique:
        raise ValueError("`metrics` is empty. Name at least one, for example `metrics=('fid', 'kid')`.")
    known = tuple(extractors)
    for extractor in known:
        if extractor.endswith(COMPANIONS):
            raise ValueError(
                f"An extractor must not be called {extractor!r}: names that end in {', '.join(COMPANIONS)} belong to "
                "what is reported beside a metric. Rename it."
            )
    return tuple(_resolve(name, known) for name in unique)


def _members(name: str) -> list[str]:
    """The metrics that a name stands for."""
    for group, members in GROUPS.items():
        if name == group or name.startswith(f"{group}_"):
            return [member + name.removeprefix(group) for member in members]
    return [name]


def _resolve(name: str, extractors: tuple[str, ...]) -> Metric:
    entry = CATALOGUE.get(name)
    if entry is not None and entry.bare:
        return Metric(name, entry, entry.extractor)
    readings = [(entry, suffix) for entry, suffix in _split(name) if suffix in extractors]
    if len(readings) > 1:
        raise ValueError(
            f"Metric {name!r} could be that of extractor {' or '.join(repr(suffix) for _, suffix in readings)}. "
            "Rename one of them."
        )
    if readings:
        return Metric(name, *readings[0])
    for _, suffix in _split(name):
        if entry is None and suffix and not get_close_matches(suffix, extractors):
            raise ValueError(
                f"Metric {name!r} needs an extractor {suffix!r}, which is not known (known: {', '.join(extractors)}). "
                f"Pass your own as `extractors={{{suffix!r}: module}}`."
            )
    bare = [*(n for n, e in CATALOGUE.items() if e.bare), *GROUPS]
    stems = [*(n for n, e in CATALOGUE.items() if e.suffixed), *GROUPS]
    valid = bare + [f"{stem}_{extractor}" for stem in stems for extractor in extractors]
    nearest = get_close_matches(name.lower(), valid, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"Unknown metric {name!r}; did you mean {nearest!r}? Known names: {', '.join(dict.fromkeys(bare))}; and, with "
        f"`_` and the name of an extractor ({', '.join(extractors)}): {', '.join(dict.fromkeys(stems))}."
    )


def _split(name: str) -> list[tuple[Entry, str]]:
    """The ways to read a name as ``<metric>_<extractor>``, the longest metric name first."""
    stems = sorted((stem for stem, entry in CATALOGUE.items() if entry.suffixed), key=len, reverse=True)
    return [(CATALOGUE[stem], name[len(stem) + 1 :]) for stem in stems if name.startswith(f"{stem}_")]


def direction(name: str) -> Direction | None:
    """Whether lower (``"min"``) or higher (``"max"``) values of a reported scalar are better; ``None`` if unknown.

    A floor belongs to the data and is neither.

    Example:
        >>> direction("fd_wavelet"), direction("recall"), direction("loss")
        ('min', 'max', None)
    """
    stem = name
    for companion in COMPANIONS:
        stem = stem.removesuffix(companion)
    entries = [CATALOGUE[stem]] if stem in CATALOGUE else [entry for entry, _ in _split(stem)]
    if not entries or name.endswith("_floor"):
        return None
    return "min" if stem != name and entries[0].direction else entries[0].direction


def complete_options(options: Mapping[str, Options] | None) -> dict[str, dict[str, Any]]:
    """Fill ``{family: {option: value}}`` up with the defaults.

    Raises:
        ValueError: For an unknown family or option.
    """
    families = {entry.family.name: entry.family for entry in CATALOGUE.values()}
    complete = {name: dict(family.options) for name, family in families.items()}
    for name, values in (options or {}).items():
        if name not in families:
            raise ValueError(f"`options` has the key {name!r}, but the metric families are {', '.join(families)}.")
        for key, value in values.items():
            if key not in families[name].options:
                allowed = ", ".join(families[name].options) or "none"
                raise ValueError(f"`options[{name!r}]` has no option {key!r}; it takes: {allowed}.")
            complete[name][key] = value
    return complete
