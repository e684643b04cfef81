"""What a metric is: one object that says what it needs, prepares the reference once, and scores generated images."""

import builtins
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from numbers import Real
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from lightning_synthqual.metrics.features import check_features
from lightning_synthqual.metrics.figures import Figure, Table
from lightning_synthqual.metrics.options import Options, complete
from lightning_synthqual.metrics.published import Published
from lightning_synthqual.metrics.views import Generated, RealSets, Runtime, SetView
from lightning_synthqual.metrics.wording import Wording

Direction = Literal["min", "max"]
Number = float | Tensor
SUFFIXES = ("_std", "_floor", "_gap", "_gap_std", "_change", "_change_std")  # of the scalars beside a metric's own
_READERS = ("rows", "prepare_sets", "score_set")  # methods of a metric that see features
_Self = TypeVar("_Self", bound="Metric")


class Influence(NamedTuple):
    """What each row adds to a value, to first order and with mean zero.

    Without generated row i the value is less by influence i divided by M - 1, without real row j by influence j divided
    by N - 1.

    Attributes:
        value: The value, a float64 scalar.
        fake: Influences of the generated rows (M,), float64.
        real: Influences of the real rows (N,), float64; empty where real rows take no part.

    Example:
        >>> parts = torch.tensor([1.0, -1.0]), torch.tensor([0.5, -0.5])
        >>> round(Influence(torch.tensor(3.0), *parts).std.item(), 4)
        1.118
    """

    value: Tensor
    fake: Tensor
    real: Tensor

    @property
    def std(self) -> Tensor:
        """Standard error of the value over draws of both sets, to first order: that of two means."""
        parts = [rows.double().var() / len(rows) for rows in (self.fake, self.real) if len(rows) > 1]
        return torch.stack(parts).sum().sqrt() if parts else self.value.new_zeros(())


@dataclass(frozen=True)
class Score:
    """One value of a metric.

    Args:
        value: The value; NaN if it is undefined, and so left out of the report.
        std: Standard error, if it is known; else it follows from the influence, if there is one. Beside an influence
            it is given where the second order of the value is known, and taken off.
        influence: Contribution of each row to the value.
        figures: Figures by name.
        tables: Tables by name.

    Example:
        >>> Score(2.5, std=0.1).value
        2.5
    """

    value: Number
    std: Number | None = None
    influence: Influence | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)

    @property
    def error(self) -> Number | None:
        """The standard error, given or from the influence."""
        return self.influence.std if self.std is None and self.influence is not None else self.std


@dataclass(frozen=True)
class Scores:
    """Several values of one metric, with the figures and tables that show them all.

    Args:
        values: Scores by the name of the value within the metric.
        figures: Figures by name.
        tables: Tables by name.

    Example:
        >>> Scores({"precision": Score(0.5), "recall": Score(0.25)}).values["recall"].value
        0.25
    """

    values: Mapping[str, Score]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)


Result = Number | Score | Scores | Mapping[str, Number | Score]


class Metric:
    """A metric: what it needs, what it prepares of the reference, and how it scores generated images.

    A subclass says in ``score`` what the value is, and in ``prepare`` what can be computed once, from the reference
    alone. With an extractor both get its features: float32 (N, D), all rows on every process. Results are the same on
    every process. Class attributes say the rest; each has a default that fits a plain distance.

    Args:
        name: Name under which the metric is reported.
        extractor: Extractor whose features it reads; ``None``: none.
        reports: Reported names, each with the name of the value it stands for; ``None``: a single value is reported
            as ``name``, a value called v as ``<name>_v``.
        suffix: End of the names of its figures and tables, where several extractors look at the same images.
        options: Values of the options in ``OPTIONS``.

    Attributes:
        direction: ``"min"`` if lower is better, ``"max"`` if higher is, ``None`` if neither; or that by value.
        family: Key in ``options=`` whose options the metric takes; empty for metrics that are given as objects.
        OPTIONS: Options that there are.
        output: Output of the extractor that it reads; ``None``: the one that distances compare.
        floor: Whether real images have a value worth reporting, and with how many of them: ``"same number"`` as were
            generated where the value depends on it, else ``"all"``.
        gap: Whether values against held-out and against training images may be subtracted.
        alarms: Values above which something is wrong, by the name of the value.
        wordings: What its values mean, by the name of the value, for the sentences of a report.
        open_names: Whether it reports values ``<name>_<value>`` that are known only once it has scored.
        published: Numbers of images without which the metric's names are not to be used.
        reads_real: Whether it looks at real images.
        both_sets: Whether it needs training and held-out images.
        generated_images: Whether it looks at generated images again after sampling: ``"all"``, ``"first"`` (the
            number is its option ``num_images``) or ``None``.
        reads_pixels: Whether it looks at the pixels of real images.
        needs_generator: Whether it samples the generator itself.
        reads_targets: Whether it compares generated images with what these are to look like, by ``inputs=``.
        reads_texts: Whether it looks at the texts that generated images are made of, by ``inputs=``.
        reads_labels: Whether it looks at the classes of images.
        more_rows_than_columns: Whether the value is biased where there are fewer images than features.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the name is empty or that of an error, an option is unknown, or a value is out of bounds.

    Example:
        >>> class MeanColour(Metric):
        ...     direction = "min"
        ...     def prepare(self, real):
        ...         return real.double().mean(0)
        ...     def score(self, state, fake):
        ...         return (fake.double().mean(0) - state).square().sum()
        >>> MeanColour("mean_colour", extractor="pixels").name
        'mean_colour'
    """

    direction: Any = None
    family: ClassVar[str] = ""
    OPTIONS: ClassVar[Options] = {}
    output: ClassVar[str | None] = None
    floor: Literal["all", "same number"] | None = None
    gap: ClassVar[bool] = False
    alarms: ClassVar[Mapping[str, float]] = MappingProxyType({})
    wordings: ClassVar[Mapping[str, Wording]] = MappingProxyType({})
    published: ClassVar[Published | None] = None
    reads_real: bool = True
    both_sets: ClassVar[bool] = False
    generated_images: ClassVar[Literal["all", "first"] | None] = None
    reads_pixels: bool = False
    needs_generator: ClassVar[bool] = False
    reads_targets: ClassVar[bool] = False
    reads_texts: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = False
    more_rows_than_columns: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        *,
        extractor: str | None = None,
        reports: Mapping[str, str] | None = None,
        suffix: str = "",
        **options: Any,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"A metric needs a name, a string that is not empty, but {type(self).__name__} got {name!r}."
            )
        if extractor is not None and (not isinstance(extractor, str) or not extractor):
            raise TypeError(f"`extractor` of metric {name!r} must be an extractor's name, but got {extractor!r}.")
        if name.endswith(SUFFIXES):
            raise ValueError(
                f"A metric must not be called {name!r}: names that end in {', '.join(SUFFIXES)} belong to errors, "
                "floors and gaps. Rename it."
            )
        self.name = name
        self.extractor = extractor
        self.suffix = suffix
        where = f"options[{self.family!r}]" if self.family else f"{type(self).__name__}.OPTIONS"
        self.options = complete(self.OPTIONS, options, where)
        self.runtime = Runtime()
        self._reports = dict(reports) if reports is not None else None
        self.check_options()

    # What a subclass says.

    def prepare(self, real: Tensor) -> Any:
        """What depends on the reference alone, computed once: by default its features (N, D)."""
        return real

    def score(self, state: Any, fake: Tensor) -> Result:
        """The value of generated features (M, D), given what ``prepare`` returned: a number, a `Score`, or several."""
        raise TypeError(f"{type(self).__name__} has no `score(self, state, fake)`. Write one.")

    def check_options(self) -> None:
        """Raise a ``ValueError`` where options do not go together."""

    def min_images(self) -> int:
        """Fewest images that a set may have."""
        return 2

    def networks(self) -> Mapping[str, Any]:
        """The distances of two stacks of images that it needs: names as in ``load_pair``, import paths or callables."""
        return {}

    def extractors(self) -> tuple[str, ...]:
        """Names of the extractors it reads."""
        return () if self.extractor is None else (self.extractor,)

    def describe(self, generated: SetView) -> dict[str, Any]:
        """What makes the value, as plain values for the protocol."""
        return {"family": self.family or type(self).__name__, "extractor": self.extractor, **self.options}

    # How an evaluation calls it; a subclass that needs more than features says so here.

    def prepare_sets(self, real: RealSets) -> Any:
        """``prepare`` from real sets."""
        if self.extractor is None or real.reference is None:
            return None
        return self.prepare(self.rows(real.reference))

    def score_set(self, state: Any, generated: Generated) -> Result:
        """``score`` of generated images."""
        return self.score(state, self.rows(generated))

    def try_out(self, generated: Generated, real_size: tuple[int, int] | None) -> Iterator[str]:
        """Before training, with two generated images: yield warnings, or raise what would fail later.

        Args:
            generated: Two images, and the generator.
            real_size: (height, width) of the real images, if it is known.
        """
        yield from ()

    def rows(self, view: SetView) -> Tensor:
        """The features (N, D) of a set that the metric reads, checked.

        Raises:
            ValueError: If one is NaN or infinite, or the extractor does not give the output.
        """
        return check_features(view.rows(str(self.extractor), self.output), view.role)

    def with_runtime(self: _Self, runtime: Runtime) -> _Self:
        """A copy that works with ``runtime``."""
        bound = copy.copy(self)
        bound.runtime = runtime
        return bound

    def outputs_read(self, embedding: str) -> frozenset[str] | None:
        """Names of the outputs of an extractor that it reads; ``None`` if it may look for any of them itself.

        Args:
            embedding: The output that distances compare.
        """
        itself = any(getattr(type(self), name) is not getattr(Metric, name) for name in _READERS)
        return None if itself and not self.family else frozenset([self.output or embedding])

    # What its results are called.

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are known to be reported."""
        return (self.name,) if self._reports is None else tuple(self._reports)

    @property
    def reports(self) -> Mapping[str, str] | None:
        """The reported names, each with the name of the value it stands for; ``None``: as values come."""
        return self._reports

    @property
    def by_class(self) -> bool:
        """Whether its value is one of real and generated features alone, so that classes have values of their own.

        That is so if evaluations call it as they do by default: ``prepare`` and ``score`` of one extractor's rows.
        """
        plain = all(getattr(type(self), name) is getattr(Metric, name) for name in _READERS)
        return plain and self.extractor is not None and self.reads_real and self.published is None

    @property
    def open_names(self) -> bool:
        """Metrics that are given as objects may return values of any names."""
        return self._reports is None and not self.family

    def direction_of(self, value: str) -> Direction | None:
        """The direction of one of the metric's values."""
        found: Direction | None = self.direction.get(value) if isinstance(self.direction, Mapping) else self.direction
        return found

    def described_direction(self, name: str) -> Any:
        """The direction of a reported name as plain values; of several unnamed values by their names."""
        if self._reports is not None:
            return self.direction_of(self._reports[name])
        return dict(self.direction) if isinstance(self.direction, Mapping) else self.direction

    def alarm(self, name: str) -> float | None:
        """The number above which the value of a reported name says that something is wrong, if there is one."""
        value = self._reports.get(name) if self._reports is not None else name.removeprefix(f"{self.name}_")
        return None if value is None else self.alarms.get(value)

    def reported(self, scores: Scores) -> dict[str, Score]:
        """The scores under the names by which they are reported."""
        if self._reports is not None:
            return {name: scores.values[value] for name, value in self._reports.items() if value in scores.values}
        return {f"{self.name}_{value}" if value else self.name: score for value, score in scores.values.items()}

    def add_report(self, name: str, value: str) -> None:
        """Report one more of the values, under this name."""
        self._reports = {**(self._reports or {self.name: ""}), name: value}


def as_scores(metric: Metric, result: Result) -> Scores:
    """The result of ``score``, of any type that it may return, as `Scores`.

    Raises:
        TypeError: If it is of another type.
        ValueError: If a number is NaN or infinite, or a value has a name that is not its own.
    """
    scores = result if isinstance(result, Scores) else _collected(metric, result)
    for name, figure in scores.figures.items():
        if not isinstance(figure, Figure) or name == "samples":
            raise TypeError(
                f"The figure {name!r} of metric {metric.name!r} must be an ImageSheet, Histograms or Scatters, and not "
                f"be called 'samples', but is {type(figure).__name__}."
            )
    return scores


def _collected(metric: Metric, result: Any) -> Scores:
    if not isinstance(result, Mapping):
        score = _as_score(metric, result)
        return Scores({"": score}, score.figures, score.tables)
    for value in result:
        if not isinstance(value, str) or f"_{value}".endswith(SUFFIXES):
            raise ValueError(
                f"`score` of metric {metric.name!r} names a value {value!r}. Names are strings that do not end in "
                f"{', '.join(suffix[1:] for suffix in SUFFIXES)}, which belong to errors, floors, gaps and changes."
            )
    parts = {value: _as_score(metric, part) for value, part in result.items()}
    figures = {name: each for part in parts.values() for name, each in part.figures.items()}
    tables = {name: each for part in parts.values() for name, each in part.tables.items()}
    return Scores(parts, figures, tables)


def _as_score(metric: Metric, result: Any) -> Score:
    if isinstance(result, Score):
        return result
    single = isinstance(result, Tensor) and result.numel() == 1
    if isinstance(result, bool) or not (single or isinstance(result, Real)):
        what = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise TypeError(
            f"`score` of metric {metric.name!r} must return a number, a Score or a dict of such, but returned {what}. "
            "Reduce it to one value."
        )
    value = float(result)
    if not isfinite(value):
        raise ValueError(
            f"Metric {metric.name!r} returned {value}. Return a finite number, or `Score(float('nan'))` where the "
            "value is undefined and should be left out."
        )
    return Score(value)


def naming(metric: Metric, error: Exception) -> Exception:
    """The error with the metric's name in it: of the same type where that is a builtin one."""
    if metric.name in str(error):
        return error
    kind = type(error) if getattr(builtins, type(error).__name__, None) is type(error) else RuntimeError
    named = (RuntimeError if issubclass(kind, UnicodeError | KeyError) else kind)(f"Metric {metric.name!r}: {error}")
    named.__cause__ = error
    return named
