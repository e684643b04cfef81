"""Learning curves: the metrics of a run over its steps, with their errors and floors, and how sure each change is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_synthqual.metrics.difference import SURE
from lightning_synthqual.plotting.canvas import Pixels, panels, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_synthqual.evaluation.report import Report

_WORDS = {"min": " (lower is better)", "max": " (higher is better)", None: ""}
_BLUE, _DARK, _GREY, _BEST = "#4c72b0", "#1f2f4d", "#555555", "#dd8452"
_COLUMNS, _LINE = 3, 0.22  # panels side by side; inches of a line of the legend


def curves(reports: Sequence["Report"], metrics: Sequence[str] | None = None) -> Pixels:
    """Draw a panel for each metric: values, a pale band of one standard error, and the floor as a dashed line.

    The bar at a point is one standard error of the change since the point before; points that are within two of them of
    the point before are hollow. The best point has a ring. Only the `points` of the reports are drawn.

    Args:
        reports: Reports of one run, in order.
        metrics: Names of the metrics; default: all.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: If there is no report, or none has a metric that was asked for.
    """
    reports = points(reports)
    measured = dict.fromkeys(name for report in reports for name in report.names)
    names = list(measured if metrics is None else metrics)
    missing = [name for name in names if name not in measured]
    if missing or not names:
        raise ValueError(f"The reports have no {', '.join(missing) or 'metrics'}. They have: {', '.join(measured)}.")
    figure, cells = panels(len(names), _COLUMNS)
    for axes, name in zip(cells, names, strict=True):
        _panel(axes, reports, name)
    _legend(figure, cells)
    return render(figure)


def points(reports: Sequence["Report"]) -> Sequence["Report"]:
    """The evaluations of the training, without those of ``trainer.validate`` and ``trainer.test`` unless all are."""
    return [report for report in reports if report.in_fit] or reports


def _panel(axes: Any, reports: Sequence["Report"], name: str) -> None:
    steps, values = _series(reports, name)
    axes.plot(steps, values, color=_BLUE, marker="o", markersize=3, linewidth=1.4)
    error_steps, errors = _series(reports, f"{name}_std")
    if len(errors):
        middle = values[np.isin(steps, error_steps)]
        band = {"color": _BLUE, "alpha": 0.2, "linewidth": 0, "label": "error of the value"}
        axes.fill_between(error_steps, middle - errors, middle + errors, **band)
    _changes(axes, reports, name)
    floor_steps, floors = _series(reports, f"{name}_floor")
    if len(floors):
        axes.plot(floor_steps, floors, color=_GREY, linestyle="--", linewidth=1, label="real images")
    direction = reports[-1].direction(name)
    if direction is not None and len(values) > 1:
        best = values.argmin() if direction == "min" else values.argmax()
        ring = {"markersize": 9, "markerfacecolor": "none", "markeredgecolor": _BEST, "markeredgewidth": 1.8}
        axes.plot(steps[best], values[best], marker="o", linestyle="none", zorder=5, label="best", **ring)
    axes.set_title(name + _WORDS[direction], fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=9)


def _changes(axes: Any, reports: Sequence["Report"], name: str) -> None:
    """Bars of the errors of changes; points that may be no better or worse than the point before are hollow."""
    steps, errors = _series(reports, f"{name}_change_std")
    if not len(errors):
        return
    known = [report for report in reports if f"{name}_change_std" in report.scalars]
    values, changes = _series(known, name)[1], _series(known, f"{name}_change")[1]
    bars = {"color": _DARK, "capsize": 2.5, "linewidth": 1.1, "linestyle": "none", "zorder": 3}
    axes.errorbar(steps, values, yerr=errors, label="error of the change since the point before", **bars)
    ties = abs(changes) <= SURE * errors
    if ties.any():
        hollow = {"markersize": 4.5, "markerfacecolor": "white", "markeredgecolor": _DARK, "linestyle": "none"}
        label = f"change within {SURE:g} errors"
        axes.plot(steps[ties], values[ties], marker="o", zorder=4, label=label, **hollow)


def _legend(figure: "Figure", cells: Sequence[Any]) -> None:
    """One legend for all panels, below them."""
    handles: dict[str, Any] = {}
    for axes in cells:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    columns = (1, 2, len(handles))[min(len(cells), _COLUMNS) - 1]
    lines = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + _LINE * lines)
    look: dict[str, Any] = {"ncols": columns, "fontsize": 9, "frameon": False}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", **look)


def _series(reports: Sequence["Report"], name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [(report.step or 0, report.scalars[name]) for report in reports if name in report.scalars]
    table = np.array(rows, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]
