"""Learning curves: the metrics of a run over its steps, with their errors and floors, and how sure each change is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lightning_synthqual.metrics.difference import SURE
from lightning_synthqual.plotting.canvas import (
    BLACK,
    BLUE,
    DASHES,
    MARKERS,
    ORANGE,
    Pixels,
    panels,
    render,
    spans_decades,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_synthqual.evaluation.report import Report

_WORDS = {"min": " (lower is better)", "max": " (higher is better)", None: ""}
_DARK = "#1f2f4d"  # of the errors of changes
_COLUMNS, _LINE = 3, 0.22  # panels side by side; inches of a line of the legend
_ENTRIES = 4  # of the legend side by side below three panels


class _Style(NamedTuple):
    """The look of a run, and its name in the legend."""

    colour: str = BLUE
    marker: str = "o"
    dashes: str = "-"
    name: str = ""


def curves(reports: Sequence["Report"], metrics: Sequence[str] | None = None) -> Pixels:
    """Draw a panel for each metric: values, a pale band of one standard error, and the floor as a dashed line.

    The bar at a point is one standard error of the change since the point before; points that are within two of them of
    the point before are hollow. The best point has a star. Values that span decades are drawn on a logarithmic axis.
    Only the `points` of the reports are drawn.

    Args:
        reports: Reports of one run, in order.
        metrics: Names of the metrics; default: all.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: If there is no report, or none has a metric that was asked for.
    """
    return curves_of_runs({"": reports}, metrics)


def curves_of_runs(runs: Mapping[str, Sequence["Report"]], metrics: Sequence[str] | None = None) -> Pixels:
    """Draw the `curves` of several runs into the same panels.

    Args:
        runs: Reports by the name of the run, each in order.
        metrics: Names of the metrics; default: all.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: If there is no report, or none has a metric that was asked for.
    """
    drawn = {run: points(reports) for run, reports in runs.items()}
    measured = dict.fromkeys(name for reports in drawn.values() for report in reports for name in report.names)
    names = list(measured if metrics is None else metrics)
    missing = [name for name in names if name not in measured]
    if missing or not names:
        raise ValueError(f"The reports have no {', '.join(missing) or 'metrics'}. They have: {', '.join(measured)}.")
    figure, cells = panels(len(names), _COLUMNS)
    for axes, name in zip(cells, names, strict=True):
        for place, (run, reports) in enumerate(drawn.items()):
            if any(name in report.scalars for report in reports):
                _line(axes, reports, name, _style(place, run))
        _finish(axes, [report for reports in drawn.values() for report in reports], name)
    _legend(figure, cells)
    return render(figure)


def points(reports: Sequence["Report"]) -> Sequence["Report"]:
    """The evaluations of the training, without those of ``trainer.validate`` and ``trainer.test`` unless all are."""
    return [report for report in reports if report.in_fit] or reports


def _style(place: int, run: str) -> _Style:
    # The orange of floors comes last: three runs differ in colours and dashes, more of them in markers too.
    colours = (BLUE, BLACK, ORANGE)
    return _Style(colours[place % 3], MARKERS[place % len(MARKERS)], DASHES[place // 3 % len(DASHES)], run)


def _line(axes: Any, reports: Sequence["Report"], name: str, style: _Style) -> None:
    """The values of one run with their errors, their floor and the best of them."""
    steps, values = _series(reports, name)
    look: dict[str, Any] = {"color": style.colour, "linestyle": style.dashes, "marker": style.marker}
    axes.plot(steps, values, markersize=3.5, linewidth=1.4, label=style.name or None, **look)
    error_steps, errors = _series(reports, f"{name}_std")
    if len(errors):
        middle = values[np.isin(steps, error_steps)]
        band = {"color": style.colour, "alpha": 0.2, "linewidth": 0, "label": "error of the value"}
        axes.fill_between(error_steps, middle - errors, middle + errors, **band)
    _changes(axes, reports, name, style)
    floor_steps, floors = _series(reports, f"{name}_floor")
    if len(floors):
        dashed = {"color": ORANGE, "linestyle": (0, (4, 3)), "linewidth": 1.3}
        axes.plot(floor_steps, floors, label="real images", **dashed)
    direction = reports[-1].direction(name)
    if direction is not None and len(values) > 1:
        best = values.argmin() if direction == "min" else values.argmax()
        star: dict[str, Any] = {"markersize": 13, "markerfacecolor": BLACK, "markeredgecolor": "white"}
        axes.plot(steps[best], values[best], marker="*", linestyle="none", zorder=5, label="best", **star)


def _finish(axes: Any, reports: Sequence["Report"], name: str) -> None:
    """Title, and a logarithmic axis where positive values span decades."""
    values = np.concatenate([_series(reports, each)[1] for each in (name, f"{name}_floor")])
    if spans_decades(values):
        axes.set_yscale("log")
    known = [report for report in reports if name in report.scalars]
    axes.set_title(name + _WORDS[known[-1].direction(name)], fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=9)


def _changes(axes: Any, reports: Sequence["Report"], name: str, style: _Style) -> None:
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
        hollow = {"markersize": 5, "markerfacecolor": "white", "markeredgecolor": style.colour, "linestyle": "none"}
        label = f"change within {SURE:g} errors"
        axes.plot(steps[ties], values[ties], marker=style.marker, zorder=4, label=label, **hollow)


def _legend(figure: "Figure", cells: Sequence[Any]) -> None:
    """One legend for all panels, below them."""
    handles: dict[str, Any] = {}
    for axes in cells:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return
    columns = (1, 2, _ENTRIES)[min(len(cells), _COLUMNS) - 1]
    lines = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + _LINE * lines)
    look: dict[str, Any] = {"ncols": columns, "fontsize": 9, "frameon": False}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", **look)


def _series(reports: Sequence["Report"], name: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [(report.step or 0, report.scalars[name]) for report in reports if name in report.scalars]
    table = np.array(rows, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]
