"""Whether a score is better than another one by more than chance, and what has to be kept to say so after a resume."""

from collections.abc import Mapping
from typing import Any

from lightning_synthqual.evaluation.report import Report
from lightning_synthqual.metrics.influences import pack_influences, unpack_influences
from lightning_synthqual.reporting.differences import difference_of


def surely_differs(name: str, report: Report, other: Report | None, significance: float | None) -> bool:
    """Whether a value of two reports differs by more than ``significance`` standard errors of its paired difference.

    Without a limit, another report, or a standard error every difference counts.

    Args:
        name: Name of the value, without a prefix.
        report: The newer report.
        other: What it is compared with; of its values only this one is read.
        significance: Number of standard errors, or ``None``.
    """
    if significance is None or other is None:
        return True
    found = difference_of(name, report, other)
    return found is None or found.std is None or abs(found.value) > significance * found.std


def pack_score(report: Report) -> dict[str, Any]:
    """A report of one value for a checkpoint: its row and, in 4 bytes a row of images, its influences."""
    return {"row": report.to_json(), "influences": pack_influences(report.influences)}


def unpack_score(state: Mapping[str, Any]) -> Report:
    """The report that ``pack_score`` packed."""
    report = Report.from_json(state["row"])
    influences = unpack_influences(state["influences"], report.scalars)
    return Report(report.scalars, report.protocol, report.step, report.epoch, influences=influences)
