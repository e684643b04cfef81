"""The catalogue: every metric name, what it needs, and how it is computed.

A family computes several scalars from one pair of feature sets; a catalogue line gives one of them its name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from torch import Tensor

from lightning_synthqual.metrics.frechet import Gaussian, distance_to_gaussian, fit_gaussian
from lightning_synthqual.metrics.kernel import Kernel, exact_distance, subset_distance, within_sums
from lightning_synthqual.metrics.manifold import precision_recall_within, squared_radii
from lightning_synthqual.metrics.share import Share

Direction = Literal["min", "max"]
Options = Mapping[str, Any]


# Named functions, not lambdas: callbacks that hold resolved metrics have to pickle.
def _two_rows(options: Options) -> int:
    return 2


@dataclass(frozen=True)
class Family:
    """Scalars that are computed together.

    Args:
        name: The key of ``options`` that concerns the family.
        prepare: ``(real, options, share) -> state``: the part that depends on the reference alone, done once.
        score: ``(real, state, fake, options, share) -> {value: scalar}``.
        options: What ``options[name]`` may hold, with the defaults.
        min_rows: Fewest rows a set may have, given the options.
        wants_more_rows_than_columns: Whether the estimate is biased for N < D, which is worth a warning.
    """

    name: str
    prepare: Callable[[Tensor, Options, Share], Any]
    score: Callable[[Tensor, Any, Tensor, Options, Share], dict[str, Tensor]]
    options: Options = field(default_factory=dict)
    min_rows: Callable[[Options], int] = _two_rows
    wants_more_rows_than_columns: bool = False


@dataclass(frozen=True)
class Entry:
    """A catalogue line.

    Args:
        family: What computes it.
        value: Which of the family's scalars it is.
        direction: ``"min"`` if lower is better, else ``"max"``.
        extractor: Whose features the bare name stands for, or ``None`` if the name needs a suffix.
        suffixed: Whether ``<name>_<extractor>`` exists.
    """

    family: Family
    value: str
    direction: Direction
    extractor: str | None = None
    suffixed: bool = False


@dataclass(frozen=True)
class Metric:
    """A requested metric: the name under which it is reported, its catalogue line, and whose features it reads."""

    name: str
    entry: Entry
    extractor: str


def _prepare_frechet(real: Tensor, options: Options, share: Share) -> Gaussian:
    return fit_gaussian(real, share)


def _score_frechet(real: Tensor, state: Gaussian, fake: Tensor, options: Options, share: Share) -> dict[str, Tensor]:
    return {"distance": distance_to_gaussian(state, fake, share)}


def _kernel(options: Options) -> Kernel:
    return Kernel("polynomial", options["degree"], options["gamma"], options["coef0"])


def _kernel_rows(options: Options) -> int:
    return 3 if options["subsets"] is None else int(options["subset_size"])


def _prepare_kernel(real: Tensor, options: Options, share: Share) -> Tensor | None:
    return within_sums(real, _kernel(options), share) if options["subsets"] is None else None


def _score_kernel(
    real: Tensor, state: Tensor | None, fake: Tensor, options: Options, share: Share
) -> dict[str, Tensor]:
    if options["subsets"] is None:
        result = exact_distance(real, fake, _kernel(options), real_sums=state, share=share)
    else:
        drawing = {key: options[key] for key in ("subsets", "subset_size", "seed")}
        result = subset_distance(real, fake, _kernel(options), **drawing)
    return {"distance": result.value, "distance_std": result.std}


def _manifold_rows(options: Options) -> int:
    return int(options["k"]) + 1


def _prepare_manifold(real: Tensor, options: Options, share: Share) -> Tensor:
    return squared_radii(real, options["k"], share)


def _score_manifold(real: Tensor, state: Tensor, fake: Tensor, options: Options, share: Share) -> dict[str, Tensor]:
    fake_radii = squared_radii(fake, options["k"], share)
    return precision_recall_within(real, state, fake, fake_radii, share)._asdict()


FRECHET = Family(
    "fid",
    prepare=_prepare_frechet,
    score=_score_frechet,
    wants_more_rows_than_columns=True,
)
KERNEL = Family(
    "kid",
    prepare=_prepare_kernel,
    score=_score_kernel,
    options={"degree": 3, "gamma": None, "coef0": 1.0, "subsets": None, "subset_size": 1000, "seed": 0},
    min_rows=_kernel_rows,
)
MANIFOLD = Family(
    "precision",
    prepare=_prepare_manifold,
    score=_score_manifold,
    options={"k": 3},
    min_rows=_manifold_rows,
)

CATALOGUE: dict[str, Entry] = {
    "fid": Entry(FRECHET, "distance", "min", extractor="inception"),
    "fd": Entry(FRECHET, "distance", "min", suffixed=True),
    "kid": Entry(KERNEL, "distance", "min", extractor="inception"),
    "kd": Entry(KERNEL, "distance", "min", suffixed=True),
    "precision": Entry(MANIFOLD, "precision", "max", extractor="inception", suffixed=True),
    "recall": Entry(MANIFOLD, "recall", "max", extractor="inception", suffixed=True),
}


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
    unique = tuple(dict.fromkeys(names))
    if not unique:
        raise ValueError("`metrics` is empty. Name at least one, for example `metrics=('fid', 'kid')`.")
    known = tuple(extractors)
    return tuple(_resolve(name, known) for name in unique)


def _resolve(name: str, extractors: tuple[str, ...]) -> Metric:
    entry = CATALOGUE.get(name)
    if entry is not None and entry.extractor is not None:
        return Metric(name, entry, entry.extractor)
    valid = [n for n, e in CATALOGUE.items() if e.extractor]
    valid += [f"{n}_{extractor}" for n, e in CATALOGUE.items() if e.suffixed for extractor in extractors]
    stem, _, suffix = name.partition("_")
    entry = CATALOGUE.get(stem)
    if entry is not None and entry.suffixed and suffix in extractors:
        return Metric(name, entry, suffix)
    if entry is not None and entry.suffixed and suffix and not get_close_matches(suffix, extractors):
        raise ValueError(
            f"Metric {name!r} needs an extractor {suffix!r}, which is not known (known: {', '.join(extractors)}). "
            f"Pass your own as `extractors={{{suffix!r}: module}}`."
        )
    nearest = get_close_matches(name.lower(), valid, n=1, cutoff=0.0)[0]
    raise ValueError(f"Unknown metric {name!r}; did you mean {nearest!r}? Known names: {', '.join(valid)}.")


def direction(name: str) -> Direction | None:
    """Whether lower (``"min"``) or higher (``"max"``) values of a reported scalar are better; ``None`` if unknown.

    Example:
        >>> direction("fd_wavelet"), direction("recall"), direction("loss")
        ('min', 'max', None)
    """
    entry = CATALOGUE.get(name) or CATALOGUE.get(name.partition("_")[0])
    if entry is None:
        return None
    return "min" if name.endswith("_std") else entry.direction


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
