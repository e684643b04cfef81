"""A report in one line."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from lightning_synthqual.reporting.findings import alarm_texts
from lightning_synthqual.reporting.numbers import with_error

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

_FEW = 6  # scalars that are neither good nor bad, where there are no others


def summary_line(report: "Report", best: Collection[str] = ()) -> str:
    """What is wrong, if anything is, the scores that can get better or worse, and the seconds of each stage.

    Args:
        report: The report.
        best: Names of the scores that are the best so far.

    Example:
        >>> from lightning_synthqual import Report
        >>> scalars = {"fid": 12.5, "fid_std": 0.25, "fid_change": -0.5, "fid_change_std": 0.04}
        >>> report = Report(scalars, {"change": {"since": 99}}, timings={"sampling": 1.5, "total": 1.75})
        >>> summary_line(report, {"fid"})
        'fid 12.50 ± 0.25, -0.500 ± 0.040 since step 99, best so far; sampling 1.5 s, total 1.8 s'
    """
    names = report.names
    shown = [name for name in names if report.direction(name) is not None] or names[:_FEW]
    changed = [name for name in shown if f"{name}_change" in report.scalars]
    since = report.protocol.get("change", {}).get("since")
    words = "" if since is None else f" since step {since}"
    scores = [_score(report, name, words if len(changed) == 1 else "", name in best) for name in shown]
    parts = ["; ".join(scores) if any(", " in score for score in scores) else ", ".join(scores)]
    if len(changed) > 1 and words:
        parts.append(f"changes{words}")
    parts.append(", ".join(f"{stage} {value:.1f} s" for stage, value in report.timings.items()))
    line = "; ".join(part for part in parts if part)
    return " ".join([*alarm_texts(report)[:1], line])


def _score(report: "Report", name: str, since: str, best: bool) -> str:
    scalars = report.scalars
    parts = [f"{name} {with_error(scalars[name], scalars.get(f'{name}_std'))}"]
    if f"{name}_change" in scalars:
        change = with_error(scalars[f"{name}_change"], scalars.get(f"{name}_change_std"), signed=True)
        parts.append(change + since)
    if best:
        parts.append("best so far")
    return ", ".join(parts)
