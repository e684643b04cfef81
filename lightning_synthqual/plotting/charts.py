"""Charts: distributions and points."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synthqual.metrics.figures import Histograms, Points, Scatters
from lightning_synthqual.plotting.canvas import (
    BLACK,
    BLUE,
    COLOURS,
    DASHES,
    MARKERS,
    ORANGE,
    Pixels,
    blank,
    panels,
    render,
    spans_decades,
)

_SETS = {"generated": (BLUE, "o"), "training": (ORANGE, "s"), "held-out": (BLACK, "^")}
_BINS = 40


def histograms(figure: Histograms) -> Pixels:
    """Draw distributions over common bins, as outlines that do not hide each other.

    Bins are logarithmic where positive values span decades; else the last bin holds all larger values too.
    """
    canvas = blank(6.4, 4.0)
    axes = canvas.add_subplot()
    everything = np.concatenate(list(figure.values.values())).astype(float)
    positive = everything[everything > 0]
    logarithmic = spans_decades(np.quantile(positive, [0.01, 0.99])) if len(positive) else False
    bins = _logarithmic_bins(positive) if logarithmic else _linear_bins(everything)
    for place, (name, values) in enumerate(figure.values.items()):
        look: dict[str, Any] = {"color": COLOURS[place % 3], "linestyle": DASHES[place % 3], "linewidth": 1.8}
        weights = np.full(len(values), 1 / len(values))
        axes.hist(np.clip(values, bins[0], bins[-1]), bins=bins.tolist(), weights=weights, histtype="step", **look)
        axes.plot([], [], label=f"{name} (n = {len(values)}, median {np.median(values):.3g})", **look)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xlabel(figure.label)
    axes.set_ylabel("share")
    axes.legend(fontsize=9, frameon=False)
    return render(canvas)


def _linear_bins(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # A few outliers must not press the rest into one bin.
    low, high = values.min(), np.quantile(values, 0.98) * 1.1
    return np.linspace(low, max(high, low + 1e-12), _BINS + 1)


def _logarithmic_bins(positive: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bins over positive values; the first one holds zeros too."""
    return np.geomspace(positive.min(), positive.max(), _BINS + 1)


def scatters(figure: Scatters) -> Pixels:
    """Draw panels of points; where an axis has a meaning, a row of panels for each name, one panel for each kind."""
    return _projections(figure) if not figure.label else _by_kind(figure)


def _projections(figure: Scatters) -> Pixels:
    canvas, cells = panels(len(figure.panels), columns=3, width=4.6, height=4.2)
    if figure.title:
        canvas.suptitle(figure.title, fontsize=11)
    for axes, (name, kinds) in zip(cells, figure.panels.items(), strict=True):
        for place, (kind, points) in enumerate(kinds.items()):
            colour, marker = _SETS.get(kind, (COLOURS[place % 3], MARKERS[place % len(MARKERS)]))
            _scatter(axes, points, colour, marker, f"{kind}: {points.note}" if points.note else kind)
        axes.set_title(name, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(fontsize=8, markerscale=2, framealpha=0.7)
    return render(canvas)


def _by_kind(figure: Scatters) -> Pixels:
    rows = len(figure.panels)
    columns = max(len(kinds) for kinds in figure.panels.values())
    canvas = blank(2.9 * columns + 0.4, 2.6 * rows + 0.5)
    if figure.title:
        canvas.suptitle(figure.title, fontsize=11)
    cells = canvas.subplots(rows, columns, squeeze=False, sharex=True, sharey="row")
    for line, (name, kinds) in zip(cells, figure.panels.items(), strict=True):
        for axes, (kind, points) in zip(line, kinds.items(), strict=False):
            _scatter(axes, points, BLUE, "o", "")
            axes.set_title(f"{kind.replace('_', '-')}\n{points.note}" if points.note else kind, fontsize=9)
            axes.tick_params(labelsize=8)
        for axes in line[len(kinds) :]:
            axes.set_visible(False)
        line[0].set_ylabel(name, fontsize=9)
    for axes in cells[-1]:
        axes.set_xlabel(figure.label, fontsize=9)
    return render(canvas)


def _scatter(axes: Any, points: Points, colour: str, marker: str, label: str) -> None:
    few = len(points.x) < 500
    size, alpha = (14, 0.7) if few else (6, 0.4)
    axes.scatter(points.x, points.y, s=size, alpha=alpha, color=colour, marker=marker, edgecolors="none", label=label)
