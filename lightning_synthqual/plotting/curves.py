"""Learning curves: the metrics of a run over its steps, with their errors and floors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lightning_synthqual.metrics.base import SUFFIXES
from lightning_synthqual.plotting.canvas import Pixels, panels, render

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

_WORDS = {"min": " (lower is better)", "max": " (higher is better)", None: ""}


def curves(reports: Sequence["Report"], metrics: Sequence[str] | None = None) -> Pixels:
    """Draw a panel for each metric: the values, a band of one standard error, and the floor as a dashed line.

    Args:
        reports: Reports of one run, in order.
        metrics: Names of the metrics; default: all.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: If there is no report, or none has a metric that was asked for.
    """
    measured = dict.fromkeys(name for report in reports for name in report.scalars if not name.endswith(SUFFIXES))
    names = list(measured if metrics is None else metrics)
    missing = [name for name in names if name not in measured]
    if missing or not names:
        raise ValueError(f"The reports have no {', '.join(missing) or 'metrics'}. They have: {', '.join(measured)}.")
    figure, cells = panels(len(names))
    for axes, name in zip(cells, names, strict=True):
        steps, values = _series(reports, name)
        axes.plot(steps, values, color="#4c72b0", marker="o", markersize=3, linewidth=1.4)
        error_steps, errors = _series(reports, f"{name}_std")
        if len(errors):
            middle = values[np.isin(steps, error_steps)]
            axes.fill_between(error_steps, middle - errors, middle + errors, color="#4c72b0", alpha=0.2, linewidth=0)
        floor_steps, floors = _series(reports, f"{name}_floor")
        if len(floors):
            axes.plot(floor_steps, floors, color="#555555", linestyle="--", linewidth=1, label="real images")
            axes.legend(fontsize=9, frameon=False)
        axes.set_title(name + _WORDS[reports[-1].direction(name)], fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=9)
    return render(figure)


def _series(reports: Sequence["Report"], name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [(report.step or 0, report.scalars[name]) for report in reports if name in report.scalars]
    table = np.array(rows, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]
