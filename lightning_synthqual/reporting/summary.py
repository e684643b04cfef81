"""A report in one line."""

from typing import TYPE_CHECKING

from lightning_synthqual.metrics.base import SUFFIXES

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

_FEW = 6  # scalars that are neither good nor bad, where there are no others


def summary_line(report: "Report") -> str:
    """The scores that can get better or worse, and the seconds of each stage.

    Example:
        >>> from lightning_synthqual import Report
        >>> timings = {"sampling": 1.5, "scoring": 0.25, "total": 1.75}
        >>> summary_line(Report({"fid": 12.5, "fid_std": 0.25}, {}, timings=timings))
        'fid 12.5 ± 0.25; sampling 1.5 s, scoring 0.2 s, total 1.8 s'
    """
    names = [name for name in report.scalars if not name.endswith(SUFFIXES)]
    ranked = [name for name in names if report.direction(name) is not None]
    scores = ", ".join(_score(report, name) for name in ranked or names[:_FEW])
    seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in report.timings.items())
    return "; ".join(part for part in (scores, seconds) if part)


def _score(report: "Report", name: str) -> str:
    error = report.scalars.get(f"{name}_std")
    return f"{name} {report.scalars[name]:.4g}" + ("" if error is None else f" ± {error:.2g}")
