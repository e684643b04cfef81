"""The catalogue: every metric name, and which value of which metric it stands for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

from lightning_synthqual.metrics.base import SUFFIXES, Direction, Metric
from lightning_synthqual.metrics.clip_score import ClipScore
from lightning_synthqual.metrics.feature_space import FeatureSpace
from lightning_synthqual.metrics.frechet import Fid50k, Fid50kFull, FrechetDistance
from lightning_synthqual.metrics.inception import InceptionScore50k, InceptionScoreMetric
from lightning_synthqual.metrics.kernel import ClipDiscrepancy, Kid50kFull, PolynomialDistance, RbfDistance
from lightning_synthqual.metrics.manifold import DensityCoverageMetric, PrecisionRecallMetric
from lightning_synthqual.metrics.memorization import Memorization, MemorizationMetric
from lightning_synthqual.metrics.options import Options
from lightning_synthqual.metrics.paired import DreamSim, Lpips, MsSsim, Psnr
from lightning_synthqual.metrics.pairs import PairsMetric
from lightning_synthqual.metrics.path_length import PUBLISHED, PathLengthMetric, PublishedPathLength
from lightning_synthqual.metrics.vendi import VendiScore
from lightning_synthqual.metrics.wording import Wording


@dataclass(frozen=True)
class Entry:
    """A catalogue line.

    Args:
        metric: Class of the metric that computes it.
        extractor: Extractor that the bare name stands for; ``None``: the name needs a suffix, or no features.
        suffixed: Whether ``<name>_<extractor>`` exists.
        value: Name of the value among those of the metric.
        arguments: Further arguments of the metric.
        title: What sentences call it; empty for the name.
    """

    metric: type[Metric]
    extractor: str | None = None
    suffixed: bool = False
    value: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""

    @property
    def bare(self) -> bool:
        """Whether the name without an extractor's exists."""
        return self.extractor is not None or not self.suffixed

    @property
    def direction(self) -> Direction | None:
        """The direction of the value."""
        found: Any = self.metric.direction
        return found.get(self.value) if isinstance(found, Mapping) else found


_UNDIRECTED = tuple(suffix for suffix in SUFFIXES if suffix != "_gap")
_inception = partial(Entry, extractor="inception")
_either = partial(Entry, extractor="inception", suffixed=True)
_own = partial(Entry, suffixed=True)
CATALOGUE: dict[str, Entry] = {
    "fid": _inception(FrechetDistance, title="FID"),
    "fd": _own(FrechetDistance, title="FD"),
    "kid": _inception(PolynomialDistance, title="KID"),
    "kid_rbf": _inception(RbfDistance, title="KID (RBF)"),
    "kd": _own(PolynomialDistance, title="KD"),
    "kd_rbf": _own(RbfDistance, title="KD (RBF)"),
    "cmmd": Entry(ClipDiscrepancy, extractor="clip", title="CMMD"),
    "isc": _inception(InceptionScoreMetric, title="The Inception Score"),
    "precision": _either(PrecisionRecallMetric, value="precision"),
    "recall": _either(PrecisionRecallMetric, value="recall"),
    "density": _either(DensityCoverageMetric, value="density"),
    "coverage": _either(DensityCoverageMetric, value="coverage"),
    "vendi": _either(VendiScore),
    "fid50k": _inception(Fid50k),
    "fid50k_full": _inception(Fid50kFull),
    "kid50k_full": _inception(Kid50kFull),
    "is50k": _inception(InceptionScore50k),
    **{
        name: Entry(MemorizationMetric, extractor="dreamsim", suffixed=True, value=name)
        for name in Memorization._fields
    },
    "pairs": Entry(PairsMetric, extractor="dreamsim", suffixed=True),
    "ppl": Entry(PathLengthMetric, title="The path length"),
    **{name: Entry(PublishedPathLength, arguments={"path": path}) for name, path in PUBLISHED.items()},
    "psnr": Entry(Psnr),
    "ms_ssim": Entry(MsSsim),
    "lpips": Entry(Lpips),
    "dreamsim": Entry(DreamSim),
    "clip_score": Entry(ClipScore, extractor="clip", suffixed=True),
    "feature_space": Entry(FeatureSpace, extractor="dreamsim", suffixed=True),
}
# Names that stand for several, with a suffix as well as without.
GROUPS: dict[str, tuple[str, ...]] = {"memorization": Memorization._fields, "pairs": ("pairs", "feature_space")}
# Names that stand for several, each of which says its extractor, in the order of a published table.
STUDIES: dict[str, tuple[str, ...]] = {
    "study": (  # Salditt, Molaverdikhani and Ercolano 2025
        *("isc", "fid", "kid", "kid_rbf", "cmmd", "precision", "recall"),
        *("ppl_z_end", "ppl_w_end", "ppl_z_full", "ppl_w_full"),
        *("pairs_inception", "pairs_clip", "pairs_dinov2"),
    )
}
# What other tools call it, or what its parts are called.
_SYNONYMS = {
    "inception_score": "isc",
    "is": "isc",
    "mmd": "kid",
    "ssim": "ms_ssim",
    "clipscore": "clip_score",
    "perceptual_path_length": "ppl_w_end",
    "clip_mmd": "cmmd",
    "improved_precision": "precision",
    "improved_recall": "recall",
    "authpct": "authenticity",
    "ct": "copying_test",
}


def metrics_by_name(
    names: Iterable[str], extractors: Iterable[str], options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Metric]:
    """The metrics that names stand for; names that one metric computes together share it.

    Args:
        names: Names of metrics, for example ``("fid", "kd_wavelet", "recall")``.
        extractors: Names of the known extractors, the user's own included.
        options: Options by metric family, for example ``{"precision": {"k": 5}}``.

    Raises:
        TypeError: If an option is of the wrong type.
        ValueError: If a name (the nearest known one is suggested), an extractor or an option is unknown.

    Example:
        >>> [(metric.names, metric.extractor) for metric in metrics_by_name(["precision", "recall"], ["inception"])]
        [(('precision', 'recall'), 'inception')]
    """
    given = _checked(options)
    known = tuple(extractors)
    check_extractor_names(known)
    found: dict[Any, Metric] = {}
    for name in dict.fromkeys(member for each in names for member in members(each)):
        entry, extractor = _look_up(name, known)
        key = (entry.metric, extractor, "" if entry.value else name)
        if key in found:
            found[key].add_report(name, entry.value)
        else:
            family = given.get(entry.metric.family, {})
            taken = {option: value for option, value in family.items() if option in entry.metric.OPTIONS}
            suffix = "" if extractor in (None, entry.extractor) else f"_{extractor}"
            reports = {name: entry.value} if entry.value else None
            arguments = {"extractor": extractor, "suffix": suffix, "reports": reports, **entry.arguments, **taken}
            found[key] = entry.metric(name, **arguments)
    _check_taken(given, list(found.values()))
    return list(found.values())


def _checked(options: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Mapping[str, Any]]:
    """Options by family, whether or not a metric of the family is asked for."""
    families: dict[str, Options] = {}
    for entry in CATALOGUE.values():
        families[entry.metric.family] = {**families.get(entry.metric.family, {}), **entry.metric.OPTIONS}
    for family, values in (options or {}).items():
        if family not in families:
            raise ValueError(f"`options` has the key {family!r}, but the metric families are {', '.join(families)}.")
        if not isinstance(values, Mapping):
            raise TypeError(f"`options[{family!r}]` must be a dict of options, but got {values!r}.")
        for name, value in values.items():
            if name not in families[family]:
                allowed = ", ".join(families[family]) or "none"
                raise ValueError(f"`options[{family!r}]` has no option {name!r}; it takes: {allowed}.")
            families[family][name].rule.check(f"options[{family!r}][{name!r}]", value)
    return dict(options or {})


def _check_taken(given: Mapping[str, Mapping[str, Any]], metrics: list[Metric]) -> None:
    """Raise if an option is for another metric of the family than those that are asked for."""
    for family, values in given.items():
        asked = [metric for metric in metrics if metric.family == family]
        for option in values:
            if asked and not any(option in metric.OPTIONS for metric in asked):
                takes = [name for name, entry in CATALOGUE.items() if option in entry.metric.OPTIONS]
                raise ValueError(
                    f"`options[{family!r}][{option!r}]` is for the metric {' or '.join(map(repr, takes))}, but "
                    f"{asked[0].name!r} says by its name what it measures. Ask for the former, or leave the option out."
                )


def check_extractor_names(extractors: Iterable[str]) -> None:
    """Raise if a name would be mistaken for that of a further scalar.

    Raises:
        ValueError: It names the extractor.
    """
    for extractor in extractors:
        if extractor.endswith(SUFFIXES):
            raise ValueError(
                f"An extractor must not be called {extractor!r}: names that end in {', '.join(SUFFIXES)} belong to the "
                "errors, floors and gaps of metrics. Rename it."
            )


def members(name: str) -> list[str]:
    """The metrics that a name stands for.

    Example:
        >>> members("pairs_pixels")
        ['pairs_pixels', 'feature_space_pixels']
    """
    if name in STUDIES:
        return [member for each in STUDIES[name] for member in members(each)]
    for group, parts in GROUPS.items():
        if name == group or name.startswith(f"{group}_"):
            return [member + name.removeprefix(group) for member in parts]
    return [name]


def without_generator(name: str) -> list[str]:
    """What a name stands for where images are finished: a study is then one of images alone.

    Example:
        >>> without_generator("ppl_w_end"), "ppl_w_end" in without_generator("study")
        (['ppl_w_end'], False)
    """
    if name not in STUDIES:
        return [name]
    return [each for each in members(name) if each not in CATALOGUE or not CATALOGUE[each].metric.needs_generator]


def _look_up(name: str, extractors: tuple[str, ...]) -> tuple[Entry, str | None]:
    """The catalogue line of a name, and whose features it reads."""
    entry = CATALOGUE.get(name)
    if entry is not None and entry.bare:
        return entry, entry.extractor
    readings = [(entry, suffix) for entry, suffix in _split(name) if suffix in extractors]
    if len(readings) > 1:
        raise ValueError(
            f"Metric {name!r} could be that of extractor {' or '.join(repr(suffix) for _, suffix in readings)}. "
            "Rename one of them."
        )
    if readings:
        return readings[0]
    for _, suffix in _split(name):
        if entry is None and suffix and not get_close_matches(suffix, extractors):
            raise ValueError(
                f"Metric {name!r} needs an extractor {suffix!r}, which is not known (known: {', '.join(extractors)}). "
                f"Pass your own as `extractors={{{suffix!r}: module}}`."
            )
    raise _unknown(name, extractors)


def _unknown(name: str, extractors: tuple[str, ...]) -> ValueError:
    bare = [*(n for n, e in CATALOGUE.items() if e.bare), *GROUPS, *STUDIES]
    stems = [*(n for n, e in CATALOGUE.items() if e.suffixed), *GROUPS]
    valid = bare + [f"{stem}_{extractor}" for stem in stems for extractor in extractors]
    nearest = _SYNONYMS.get(name.lower()) or get_close_matches(name.lower(), valid, n=1, cutoff=0.0)[0]
    return ValueError(
        f"Unknown metric {name!r}; did you mean {nearest!r}? Known names: {', '.join(dict.fromkeys(bare))}; and, with "
        f"`_` and the name of an extractor ({', '.join(extractors)}): {', '.join(dict.fromkeys(stems))}. A metric of "
        "your own may be given as an object or an import path."
    )


def _split(name: str) -> list[tuple[Entry, str]]:
    """The ways to read a name as ``<metric>_<extractor>``, the longest metric name first."""
    stems = sorted((stem for stem, entry in CATALOGUE.items() if entry.suffixed), key=len, reverse=True)
    return [(CATALOGUE[stem], name[len(stem) + 1 :]) for stem in stems if name.startswith(f"{stem}_")]


def stem_of(name: str) -> str:
    """The value that a scalar belongs to.

    Example:
        >>> stem_of("kid_gap_std"), stem_of("kid")
        ('kid', 'kid')
    """
    found = [suffix for suffix in SUFFIXES if name.endswith(suffix)]
    return name.removesuffix(max(found, key=len)) if found else name


def owner(metrics: Sequence[Metric], name: str) -> Metric | None:
    """The metric that reports a scalar of this name, or the one whose standard error, floor or gap it is.

    Example:
        >>> owner(metrics_by_name(["fid", "recall"], ["inception"]), "recall_std").names
        ('recall',)
    """
    stem = stem_of(name)
    for metric in metrics:
        if stem in metric.names:
            return metric
    found = [metric for metric in metrics if metric.open_names and stem.startswith(f"{metric.name}_")]
    return max(found, key=lambda metric: len(metric.name), default=None)


def direction_of(metric: Metric, name: str) -> Direction | None:
    """The direction of a scalar that a metric reports; errors, floors and changes have none."""
    if name not in metric.names and name.endswith(_UNDIRECTED):
        return None
    name = name if name in metric.names else name.removesuffix("_gap")
    found = metric.described_direction(name if name in metric.names else metric.name)
    if isinstance(found, Mapping):
        found = found.get(name.removeprefix(f"{metric.name}_"))
    known: Direction | None = found
    return known


def direction(name: str) -> Direction | None:
    """Whether lower (``"min"``) or higher (``"max"``) values of a catalogue name are better; ``None`` if neither.

    Floors belong to the data, and errors to the number of images: they have no direction.

    Example:
        >>> direction("fd_wavelet"), direction("recall"), direction("recall_std"), direction("loss")
        ('min', 'max', None, None)
    """
    if name.endswith(_UNDIRECTED):
        return None
    stem = name.removesuffix("_gap")
    entries = [CATALOGUE[stem]] if stem in CATALOGUE else [entry for entry, _ in _split(stem)]
    return entries[0].direction if entries else None


def alarm(name: str) -> float | None:
    """The number above which a catalogue name's value says that something is wrong, if there is one.

    Example:
        >>> alarm("kd_wavelet_gap"), alarm("kd_wavelet")
        (0.0, None)
    """
    stem = name.removesuffix("_gap")
    entries = [CATALOGUE[stem]] if stem in CATALOGUE else [entry for entry, _ in _split(stem)]
    if not entries:
        return None
    return (0.0 if entries[0].metric.gap else None) if stem != name else entries[0].metric.alarms.get(entries[0].value)


class Reading(NamedTuple):
    """How a value of the catalogue is read.

    Args:
        title: What sentences call it.
        wording: What it means.
        siblings: Reported names of the values of the same metric, by the names of the values.
    """

    title: str
    wording: Wording
    siblings: Mapping[str, str]


def reading(name: str) -> Reading:
    """How a value is read; one that is not in the catalogue has its name for a title.

    Example:
        >>> reading("fd_wavelet").title, reading("copy_excess_mine").siblings["copy_fraction"], reading("loss").title
        ('FD (wavelet)', 'copy_fraction_mine', 'loss')
    """
    found = [(CATALOGUE[name], "")] if name in CATALOGUE else _split(name)
    if not found:
        return Reading(name, Wording(), {})
    entry, extractor = found[0]
    stem = name.removesuffix(f"_{extractor}") if extractor else name
    title = (entry.title or stem.replace("_", " ")) + (f" ({extractor})" if extractor else "")
    siblings = {
        other.value: f"{each}_{extractor}" if extractor else each
        for each, other in CATALOGUE.items()
        if other.metric is entry.metric and other.value
    }
    return Reading(title, entry.metric.wordings.get(entry.value, Wording()), siblings)


def alarm_of(metric: Metric, name: str) -> float | None:
    """The number above which a scalar that a metric reports says that something is wrong, if there is one.

    Above 0 a gap says that generated images are nearer to training images than to held-out ones.
    """
    if name.endswith("_gap") and name not in metric.names:
        return 0.0 if metric.gap else None
    return metric.alarm(name)
