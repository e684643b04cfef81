"""Which of several reports is the best."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report


def best_of(reports: Sequence["Report"], name: str) -> "Report | None":
    """The report in which a scalar is best, the earliest of those that tie; ``None`` if none is better than others."""
    known = [report for report in reports if name in report.scalars]
    direction = known[-1].direction(name) if known else None
    if direction is None:
        return None
    return (min if direction == "min" else max)(known, key=lambda report: report.scalars[name])


def best_by_name(reports: Sequence["Report"]) -> dict[str, "Report"]:
    """By metric with a direction, the report in which it is best, as `best_of` finds it."""
    names = dict.fromkeys(name for report in reports for name in report.names)
    found = {name: best_of(reports, name) for name in names}
    return {name: report for name, report in found.items() if report is not None}
