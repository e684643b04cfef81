"""From arguments to a checked plan of what to measure and how; nothing is opened or loaded here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lightning_synthqual.checking import Rule, check_all
from lightning_synthqual.extractors.base import check_extractor_name
from lightning_synthqual.extractors.registry import CATALOGUE as EXTRACTORS
from lightning_synthqual.extractors.registry import PAIRS as PAIR_NETWORKS
from lightning_synthqual.extractors.registry import open_clip_names
from lightning_synthqual.images.inputs import Inputs
from lightning_synthqual.images.ranges import Range
from lightning_synthqual.images.source import checked_range
from lightning_synthqual.importing import resolve_object
from lightning_synthqual.metrics.base import Metric
from lightning_synthqual.metrics.by_class import PerClass
from lightning_synthqual.metrics.catalogue import CATALOGUE as METRICS
from lightning_synthqual.metrics.catalogue import members, metrics_by_name, owner
from lightning_synthqual.metrics.custom import as_metric

_IMAGES = Rule(
    refused=(bool, int, float, bytes),
    expected="a Dataset, a DataLoader, a path of images, or another set of images",
    optional=True,
)
_RANGE = Rule(Sequence, items=Rule(float), length=2, expected="two numbers (low, high)", optional=True)
_PATH = Rule(Path, optional=True)
_TINY = 16  # images of each kind in a smoke test
_SIDE = 2**16  # pixels, of the largest images
_WORST = "_worst"  # end of the names that ask for the images that harm a score most

INPUTS_RULES = {
    "inputs": Rule(
        refused=(bool, int, float, bytes),
        expected="a Dataset, a DataLoader, an image folder, a list of prompts, or `Images` of these",
        optional=True,
    ),
    "repeat_inputs": Rule(bool),
}
SHARED_RULES = {
    "real": _IMAGES,
    "held_out": _IMAGES,
    "reference": Rule(choices=("real", "held_out")),
    "metrics": Rule(
        Sequence,
        refused=(str,),
        items=Rule(refused=(bool, int, float, bytes, type(None)), expected="a metric's name or a Metric"),
        expected="a list or tuple of metrics",
        hint="A single metric is given as `metrics=('fid',)`.",
    ),
    "num_real": Rule(int, low=2, optional=True),
    "batch_size": Rule(int, low=1),
    "image_range": Rule(Sequence, items=Rule(float), length=2, expected="two numbers (low, high)"),
    "real_range": _RANGE,
    "image_size": Rule(
        (int, Sequence),
        low=1,
        high=_SIDE,
        items=Rule(int, low=1, high=_SIDE),
        length=2,
        expected="a positive integer or two of them (height, width)",
        optional=True,
    ),
    "extractors": Rule(Mapping, expected="a mapping from names to extractors", optional=True),
    "options": Rule(
        Mapping,
        items=Rule(Mapping),
        expected='a mapping from metric families to their options, such as {"kid": {"subsets": 100}}',
        optional=True,
    ),
    "weights_dir": _PATH,
    "cache_dir": _PATH,
    "cache_key": Rule(str, optional=True),
    "cache_check": Rule(choices=("sample", "full")),
    "num_workers": Rule(int, low=0, optional=True),
    "seed": Rule(int, low=0),
}


PLANNED_RULES = {name: rule for name, rule in SHARED_RULES.items() if name not in ("real", "held_out")}
PLANNED_RULES |= {"keep_on_device": Rule(bool), "per_class": Rule(bool)}


@dataclass(frozen=True)
class Plan:
    """What to measure and how, as training and offline evaluation share it; see ``QualityMonitor`` for the arguments.

    Attributes:
        metrics: The metrics, each with its options.
        names: Names of the scalars that are known to be reported, in the order in which they were asked for.
        size: (height, width) to resize real images to, or ``None``.
        keep_on_device: Whether networks and the reference stay on the accelerator between evaluations.
        smoke_test: Whether only a few images are used, so that published protocols do not require their numbers.
        worst: Names of the scalars whose most harmful images are shown.
    """

    metrics: tuple[Metric, ...]
    names: tuple[str, ...]
    reference: Literal["real", "held_out"] = "real"
    num_real: int | None = None
    batch_size: int = 64
    image_range: Range = (-1.0, 1.0)
    real_range: Range | None = None
    size: tuple[int, int] | None = None
    extractors: Mapping[str, Any] = field(default_factory=dict)
    weights_dir: str | Path | None = None
    cache_dir: str | Path | None = None
    cache_key: str | None = None
    cache_check: Literal["sample", "full"] = "sample"
    num_workers: int | None = None
    seed: int = 0
    skip_unreadable: bool = False
    keep_on_device: bool = False
    smoke_test: bool = False
    worst: tuple[str, ...] = ()

    @property
    def min_images(self) -> int:
        """The fewest images with which every metric is defined."""
        return max(metric.min_images() for metric in self.metrics)

    @property
    def reads_real(self) -> bool:
        """Whether a metric looks at real images."""
        return any(metric.reads_real for metric in self.metrics)

    @property
    def needs_both(self) -> bool:
        """Whether a metric needs training images and held-out ones."""
        return any(metric.both_sets for metric in self.metrics)

    @property
    def compares_both(self) -> bool:
        """Whether a metric makes use of the real set that is not the reference."""
        return any(metric.floor or metric.gap or metric.both_sets for metric in self.metrics)

    @property
    def reads_labels(self) -> bool:
        """Whether a metric looks at the classes of images."""
        return any(metric.reads_labels for metric in self.metrics)

    @property
    def extractor_names(self) -> list[str]:
        """The extractors that metrics read."""
        return list(dict.fromkeys(name for metric in self.metrics for name in metric.extractors()))

    def for_smoke_test(self) -> "Plan":
        """The same with a few real images, and, as ``most_samples`` says, as few generated ones."""
        return replace(self, num_real=max(_TINY, self.min_images), smoke_test=True)

    @property
    def most_samples(self) -> int | None:
        """The most generated images, where only a few are used."""
        return max(_TINY, self.min_images) if self.smoke_test else None

    def number_of(self, num_samples: int, inputs: Inputs | None) -> int:
        """Number of images to generate."""
        if inputs is not None:
            return inputs.num_samples
        return num_samples if self.most_samples is None else min(num_samples, self.most_samples)

    def check_inputs(self, inputs: Inputs | None) -> None:
        """Raise if a metric does not find the targets or texts that it compares with.

        Raises:
            ValueError: It names the metric.
        """
        for metric in self.metrics:
            names = ", ".join(metric.names)
            if metric.reads_targets and (inputs is None or inputs.targets is None):
                missing = "`inputs` is missing" if inputs is None else "the items of `inputs` hold no image"
                raise ValueError(
                    f"{names} compares each generated image with its target, but {missing}. Pass `inputs=` items that "
                    "are tuples (input, target), dicts with `target`, or images that are their own targets; for "
                    "similarities to the nearest real images, ask for 'pairs'."
                )
            if metric.reads_texts and (inputs is None or not inputs.has_texts):
                missing = "`inputs` is missing" if inputs is None else "the items of `inputs` hold none"
                raise ValueError(
                    f"{names} compares each generated image with its text, but {missing}. Pass `inputs=` a list of "
                    "prompts, or items that are tuples with a string or dicts with `text`, `caption` or `prompt`."
                )

    def check_labels(self, labels: str | None, label_format: str) -> None:
        """Raise if a generator is not given the labels that other arguments need.

        Raises:
            ValueError: It names the argument.
        """
        needing = ["label_format='one_hot'"] if label_format == "one_hot" else []
        needing += ["per_class=True"] if self.reads_labels else []
        if needing and labels is None:
            raise ValueError(
                f"`{needing[0]}` needs labels of generated images. Pass `labels='uniform'` or `labels='data'`, too."
            )

    def check_held_out(self, held_out: Any) -> None:
        """Raise if there are no held-out images where a metric needs them.

        Raises:
            ValueError: It names the metrics.
        """
        names = [name for metric in self.metrics if metric.both_sets for name in metric.names]
        if names and held_out is None:
            more = f" and {len(names) - 1} more compare" if len(names) > 1 else " compares"
            raise ValueError(
                f"{names[0]}{more} the neighbours of generated images in training and in held-out data, but "
                "`held_out` is missing. Pass real images that the generator is not trained on."
            )


def make_plan(
    metrics: Sequence[Any],
    *,
    reference: Literal["real", "held_out"] = "real",
    num_real: int | None = None,
    batch_size: int = 64,
    image_range: Range = (-1.0, 1.0),
    real_range: Range | None = None,
    image_size: int | tuple[int, int] | None = None,
    extractors: Mapping[str, Any] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    weights_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    cache_key: str | None = None,
    cache_check: Literal["sample", "full"] = "sample",
    num_workers: int | None = None,
    seed: int = 0,
    skip_unreadable: bool = False,
    keep_on_device: bool = False,
    per_class: bool = False,
) -> Plan:
    """Check the arguments and look the metrics up.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has an impossible value, or a metric is unknown.
    """
    if isinstance(metrics, str):
        raise TypeError(
            f"`metrics` must be a list or tuple of names, but got one string. Use `metrics=({metrics!r},)`."
        )
    values = check_all(locals(), PLANNED_RULES)
    for name in ("image_range", "real_range"):
        if values[name] is not None:
            values[name] = checked_range(name, values[name])
    size = values["image_size"]
    own = dict(values["extractors"] or {})
    for name in own:
        check_extractor_name(name)
    known = list(dict.fromkeys([*EXTRACTORS, *own]))
    asked, worst = _without_worst([_own_metric(each) for each in metrics], known)
    found, names = _metrics(asked, known, values["options"])
    if values["per_class"]:
        added = _by_class(found)
        found, names = [*found, *added], [*names, *(name for each in added for name in each.names)]
    _check_networks(found)
    return Plan(
        metrics=tuple(found),
        names=tuple(names),
        size=(size, size) if isinstance(size, int) else size,
        extractors=own,
        skip_unreadable=skip_unreadable,
        worst=tuple(worst),
        **{
            name: values[name]
            for name in PLANNED_RULES
            if name not in ("metrics", "image_size", "extractors", "options", "per_class")
        },
    )


def _metrics(
    given: Sequence[Any], extractors: list[str], options: Mapping[str, Mapping[str, Any]] | None
) -> tuple[list[Metric], list[str]]:
    """The metrics of names and objects, and the reported names in the order in which they were asked for."""
    if not given:
        raise ValueError("`metrics` is empty. Name at least one, for example `metrics=('fid', 'kid')`.")
    wanted = [each for each in given if isinstance(each, str)]
    named = _by_name(wanted, extractors, options)
    own = [each for each in given if not isinstance(each, str)]
    order = [name for each in given for name in (members(each) if isinstance(each, str) else each.names)]
    found = [*named, *own]
    taken: dict[str, Metric] = {}
    for metric in found:
        for name in metric.names:
            if name in taken:
                raise ValueError(f"Two metrics are called {name!r}. Give each metric a name of its own.")
            taken[name] = metric
        for extractor in metric.extractors():
            if extractor not in extractors and extractor not in open_clip_names():
                raise ValueError(
                    f"Metric {metric.name!r} reads extractor {extractor!r}, which is not known (known: "
                    f"{', '.join(extractors)}). Pass your own as `extractors={{{extractor!r}: module}}`."
                )
    return found, list(dict.fromkeys(order))


def _by_class(metrics: Sequence[Metric]) -> list[PerClass]:
    """The same metrics by class, where that has a meaning.

    Raises:
        ValueError: If it has for none of them.
    """
    found = [PerClass(metric) for metric in metrics if metric.by_class]
    if not found:
        raise ValueError(
            "`per_class=True` was given, but none of the metrics compares features of real and generated images: "
            f"{', '.join(metric.name for metric in metrics)}. Add one, such as 'fid', or leave `per_class` out."
        )
    return found


def _without_worst(given: Iterable[Any], extractors: Iterable[str]) -> tuple[list[Any], list[str]]:
    """Metrics with scores in place of the names ``<score>_worst``, and those scores."""
    given = list(given)
    own = [each for each in given if not isinstance(each, str)]
    taken = tuple(f"_{name}" for name in extractors if f"_{name}".endswith(_WORST))
    asked, worst = [], []
    for each in given:
        score = each.removesuffix(_WORST) if isinstance(each, str) else each
        if score == each or (each.endswith(taken) and not score.endswith(taken)):  # or the end is an extractor's name
            asked.append(each)
            continue
        worst += members(score)
        asked += [score] if owner(own, score) is None else []
    return asked, list(dict.fromkeys(worst))


def _own_metric(value: Any) -> Any:
    """A metric of the user's from an object, a class or an import path; catalogue names stay as they are."""
    found = _imported(value) if isinstance(value, str) and ("." in value or ":" in value) else value
    return found if isinstance(found, str) else as_metric(found, value)


def _imported(path: str) -> Any:
    """What an import path names; a name with the dots of an open_clip network is no path and stays."""
    try:
        return resolve_object(path, "metrics")
    except ValueError:
        if path.startswith(tuple(f"{name}_" for name, entry in METRICS.items() if entry.suffixed)):
            return path
        raise


def _by_name(names: list[str], extractors: list[str], options: Mapping[str, Mapping[str, Any]] | None) -> list[Metric]:
    """Look metrics up; open_clip, which takes seconds to import, is asked for its names only if all others fail."""
    try:
        return metrics_by_name(names, extractors, options)
    except ValueError as error:
        unknown = error
    try:
        return metrics_by_name(names, [*extractors, *open_clip_names()], options)
    except ValueError:
        raise unknown from None


def _check_networks(metrics: Iterable[Metric]) -> None:
    """Raise if a metric needs a distance that is unknown.

    Raises:
        TypeError: If it is not callable.
        ValueError: If it is unknown.
    """
    known = {name for metric in metrics for name in metric.extractors()}
    for metric in metrics:
        for key, value in metric.networks().items():
            if isinstance(value, str) and value in (*PAIR_NETWORKS, *known):
                continue
            if isinstance(value, str) and "." not in value and ":" not in value:
                raise ValueError(
                    f"Metric {metric.name!r} needs the similarity {value!r}, but known are {', '.join(PAIR_NETWORKS)} "
                    f"and the extractors of other metrics ({', '.join(sorted(known)) or 'none'}). A callable (images, "
                    "images) -> (N,) or its import path will do, too."
                )
            found: Callable[..., Any] = resolve_object(value, key)
            if not callable(found):
                raise TypeError(
                    f"The {key} of metric {metric.name!r} must be a name or a callable (images, images) -> (N,), but "
                    f"got {type(found).__name__}."
                )
