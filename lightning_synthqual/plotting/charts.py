"""Charts: distributions and points."""

import numpy as np

from lightning_synthqual.metrics.figures import Histograms, Scatters
from lightning_synthqual.plotting.canvas import Pixels, blank, panels, render

_STYLES = (("#dd8452", "-"), ("#55a868", "-"), ("#555555", "--"))
_COLOURS = ("#dd8452", "#4c72b0", "#55a868", "#222222", "#aaaaaa")
_SETS = {"training": "#4c72b0", "held-out": "#55a868", "generated": "#dd8452"}


def histograms(figure: Histograms) -> Pixels:
    """Draw distributions over common bins, as outlines that do not hide each other.

    The last bin holds all larger values too.
    """
    canvas = blank(6.4, 4.0)
    axes = canvas.add_subplot()
    everything = np.concatenate(list(figure.values.values()))
    # A few outliers must not press the rest into one bin.
    low, high = everything.min(), np.quantile(everything, 0.98) * 1.1
    bins = np.linspace(low, max(high, low + 1e-12), 41).tolist()
    for (name, values), (colour, line) in zip(figure.values.items(), _STYLES, strict=False):
        axes.hist(
            np.clip(values, low, bins[-1]),
            bins=bins,
            weights=np.full(len(values), 1 / len(values)),
            histtype="step",
            color=colour,
            linestyle=line,
            linewidth=1.6,
        )
        label = f"{name} (n = {len(values)}, median {np.median(values):.3g})"
        axes.plot([], [], color=colour, linestyle=line, label=label)
    axes.set_xlabel(figure.label)
    axes.set_ylabel("share")
    axes.legend(fontsize=9, frameon=False)
    return render(canvas)


def scatters(figure: Scatters) -> Pixels:
    """Draw panels of points."""
    plain = not figure.label
    canvas, cells = panels(len(figure.panels), columns=3 if plain else 2, width=4.6 if plain else 5.2, height=4.2)
    if figure.title:
        canvas.suptitle(figure.title, fontsize=11)
    for axes, (name, kinds) in zip(cells, figure.panels.items(), strict=True):
        for place, (kind, points) in enumerate(kinds.items()):
            label = f"{kind}: {points.note}" if points.note else kind
            colour = _SETS.get(kind, _COLOURS[place % len(_COLOURS)])
            axes.scatter(points.x, points.y, s=7, alpha=0.5, color=colour, edgecolors="none", label=label)
        if plain:
            axes.set_title(name, fontsize=10)
            axes.set_xticks([])
            axes.set_yticks([])
        else:
            axes.set_xlabel(figure.label)
            axes.set_ylabel(name)
        axes.legend(fontsize=8, markerscale=2, framealpha=0.7)
    return render(canvas)
