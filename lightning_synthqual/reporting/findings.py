"""A report in sentences: what its numbers say, the most important first."""

from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING, Literal, NamedTuple

from lightning_synthqual.metrics.base import Direction
from lightning_synthqual.metrics.catalogue import alarm, reading
from lightning_synthqual.metrics.difference import SURE
from lightning_synthqual.metrics.wording import filled
from lightning_synthqual.reporting.differences import with_change
from lightning_synthqual.reporting.numbers import with_error

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

ALARM = 3.0  # standard errors beyond which an alarm is no chance, as for the stopping: there are many evaluations
CLEARLY = 1.1  # times as bad as real images: less is not worth a sentence, however small its error
Kind = Literal["alarm", "worse", "change", "as real", "clear"]


class Finding(NamedTuple):
    """One sentence on a report.

    Args:
        kind: ``"alarm"``: something is wrong; ``"worse"``: a score is worse than that of real images; ``"change"``:
            against the evaluation before; ``"as real"``: scores are no worse than those of real images; ``"clear"``:
            an alarm that is silent.
        text: The sentence.
        names: The values that it speaks of.
    """

    kind: Kind
    text: str
    names: tuple[str, ...]


def findings(report: "Report", before: "Report | None" = None) -> list[Finding]:
    """What a report says in plain sentences, the most important first; none where nothing can be said.

    An alarm (copies; a gap between held-out and training images) needs a value beyond it by more than `ALARM` standard
    errors. A score is called worse than that of real images if it is so by more than `ALARM` standard errors and a
    factor of `CLEARLY`, and changed if it is by more than two standard errors of the change.

    Args:
        report: The report.
        before: The evaluation before it, where the report does not hold its changes yet.

    Example:
        >>> from lightning_synthqual import Report
        >>> found = findings(Report({"fid": 12.0, "fid_std": 0.5, "fid_floor": 3.0}, {}))
        >>> [finding.text for finding in found]
        ['FID is 4.0 times what real images score (12.00 ± 0.50, real images 3).']
    """
    report = with_change(report, before)
    return [*_alarms(report), *_against_floors(report), *_changes(report), *_as_real(report), *_silent_alarms(report)]


def alarm_texts(report: "Report") -> list[str]:
    """The sentences on what is wrong alone, for places with little room."""
    return [finding.text for finding in _alarms(report)]


def _alarms(report: "Report") -> Iterator[Finding]:
    for name, (value, error) in _with_alarms(report).items():
        if value <= (alarm(name) or 0.0) + ALARM * error:
            continue
        found = _filled(report, name, reading(name).wording.alarm)
        title = _sentence(reading(name).title)
        yield Finding("alarm", found or f"{title} is too high ({with_error(value, error)}).", (name,))
    yield from _gaps(report)


def _gaps(report: "Report") -> Iterator[Finding]:
    """One sentence on all gaps: they say the same."""
    beyond = {}
    for name in report.names:
        gap, error = report.scalars.get(f"{name}_gap"), report.scalars.get(f"{name}_gap_std")
        edge = alarm(f"{name}_gap")
        if gap is not None and error is not None and edge is not None and gap > edge + ALARM * error:
            beyond[name] = with_error(gap, error)
    if beyond:
        words = ", ".join(f"{reading(name).title} by {gap}" for name, gap in beyond.items())
        text = f"Generated images are nearer to training images than to held-out images: {words}."
        yield Finding("alarm", text, tuple(beyond))


def _silent_alarms(report: "Report") -> Iterator[Finding]:
    for name, (value, error) in _with_alarms(report).items():
        text = _filled(report, name, reading(name).wording.clear)
        if value <= (alarm(name) or 0.0) + ALARM * error and text:
            yield Finding("clear", text, (name,))


def _with_alarms(report: "Report") -> dict[str, tuple[float, float]]:
    """Values that have an alarm, each with its standard error: without one nothing is known of chance."""
    scalars = report.scalars
    return {
        name: (scalars[name], scalars[f"{name}_std"])
        for name in report.names
        if alarm(name) is not None and f"{name}_std" in scalars
    }


def _filled(report: "Report", name: str, sentence: str) -> str | None:
    siblings = {value: each for value, each in reading(name).siblings.items() if each in report.scalars}
    values = {value: report.scalars[each] for value, each in siblings.items()}
    return filled(sentence, values, report.protocol.get("num_samples")) if sentence else None


class _Floored(NamedTuple):
    """A value and that of real images; ``ratio`` is how many times it is as bad, infinite without a measure."""

    name: str
    value: float
    error: float | None
    floor: float
    direction: Direction
    ratio: float

    @property
    def worse(self) -> bool:
        loss = self.value - self.floor if self.direction == "min" else self.floor - self.value
        return loss > ALARM * (self.error or 0.0) and self.ratio > CLEARLY

    @property
    def numbers(self) -> str:
        return f"{with_error(self.value, self.error)}, real images {self.floor:.3g}"


def _floored(report: "Report") -> list[_Floored]:
    found = []
    for name in report.names:
        floor, direction = report.scalars.get(f"{name}_floor"), report.direction(name)
        if floor is None or direction is None:
            continue
        value, errors = report.scalars[name], [report.scalars.get(f"{name}{end}_std") for end in ("", "_floor")]
        known = [error for error in errors if error is not None]
        error = sum(each**2 for each in known) ** 0.5 if known else None
        bad, good = (value, floor) if direction == "min" else (floor, value)
        found.append(_Floored(name, value, error, floor, direction, bad / good if good > 0 else float("inf")))
    return found


def _against_floors(report: "Report") -> Iterator[Finding]:
    for each in sorted(filter(lambda each: each.worse, _floored(report)), key=lambda each: -each.ratio):
        title, wording, _ = reading(each.name)
        if each.direction == "max":
            text = f"{_sentence(title)} is low ({each.numbers})"
        elif isfinite(each.ratio):
            text = f"{_sentence(title)} is {_times(each.ratio)} times what real images score ({each.numbers})"
        else:  # an unbiased distance of real images may be 0 or below
            text = f"{_sentence(title)} is above that of real images ({each.numbers})"
        meaning = f": {wording.meaning}" if wording.meaning else ""
        yield Finding("worse", f"{text}{meaning}.", (each.name,))


def _as_real(report: "Report") -> Iterator[Finding]:
    names = tuple(each.name for each in _floored(report) if not each.worse)
    if names:
        verb = "is" if len(names) == 1 else "are"
        yield Finding("as real", f"{_sentence(_listed(names))} {verb} no worse than for real images.", names)


def _changes(report: "Report") -> Iterator[Finding]:
    changes = {
        name: (report.scalars[f"{name}_change"], report.scalars[f"{name}_change_std"])
        for name in report.names
        if f"{name}_change_std" in report.scalars and report.direction(name) is not None
    }
    if not changes:
        return
    step = report.protocol.get("change", {}).get("since")
    since = "the last evaluation" if step is None else f"the last evaluation (step {step})"
    sure = {name: change for name, (change, error) in changes.items() if abs(change) > SURE * error}
    for word, sign in (("Better", 1), ("Worse", -1)):
        names = tuple(name for name in sure if sign * _gain(report, name, sure[name]) > 0)
        if names:
            parts = (f"{reading(name).title} by {with_error(abs(sure[name]), changes[name][1])}" for name in names)
            yield Finding("change", f"{word} than {since}: {', '.join(parts)}.", names)
    if not sure:
        text = f"No score differs from {since} by more than {SURE:g} standard errors."
        yield Finding("change", text, tuple(changes))


def _gain(report: "Report", name: str, change: float) -> float:
    return -change if report.direction(name) == "min" else change


def _listed(names: tuple[str, ...]) -> str:
    titles = [reading(name).title for name in names]
    return " and ".join(filter(None, [", ".join(titles[:-1]), titles[-1]]))


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
