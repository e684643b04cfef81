"""Drawings of what an evaluation found; matplotlib is imported when the first one is made."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]
_DPI = 100
_COLOURS = {"training": "#4c72b0", "held-out": "#55a868", "generated": "#dd8452"}


def neighbors_sheet(rows: Sequence[tuple[Sequence[Picture], Sequence[str]]], titles: Sequence[str]) -> Picture:
    """Rows of pictures with a line of text below each, under common titles.

    Args:
        rows: For each row its pictures, uint8 (H, W, 3), and their texts.
        titles: Of the columns.
    """
    figure, cells = _sheet(len(rows), len(titles), height=1.75)
    for row, (pictures, texts) in enumerate(rows):
        for column, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            _show(cells(row, column), picture, text)
    for column, title in enumerate(titles):
        cells(0, column).set_title(title, fontsize=10)
    return render(figure)


def pairs_sheet(rows: Mapping[str, Sequence[tuple[str, Picture, Picture]]], title: str) -> Picture:
    """For each row (a metric) some pairs of pictures side by side, each with a line of text.

    Args:
        rows: By the name of the metric: text, one picture and the other, uint8 (H, W, 3).
        title: Of the sheet.
    """
    width = max(len(pairs) for pairs in rows.values())
    figure, cells = _sheet(len(rows), width, height=1.6, width=2.9, left=0.9)
    figure.suptitle(title, fontsize=11)
    for row, (name, pairs) in enumerate(rows.items()):
        for column, (text, one, other) in enumerate(pairs):
            height = max(len(one), len(other))
            gap = np.full((height, max(2, height // 32), 3), 255, np.uint8)
            sides = [np.pad(side, ((0, height - len(side)), (0, 0), (0, 0))) for side in (one, other)]
            _show(cells(row, column), np.concatenate([sides[0], gap, sides[1]], axis=1), text)
        cells(row, 0).set_ylabel(name, fontsize=10, rotation=0, ha="right", va="center", labelpad=8)
    return render(figure)


def distance_histograms(distances: Mapping[str, NDArray[np.float64]], label: str) -> Picture:
    """Histograms of distances to nearest neighbours, over common bins, as outlines that do not hide each other.

    The last bin holds all larger distances too.

    Args:
        distances: By what they are.
        label: What kind of distance.
    """
    figure = _figure(6.4, 4.0)
    axes = figure.add_subplot()
    everything = np.concatenate(list(distances.values()))
    # A few outliers must not press the rest into one bin.
    low, high = everything.min(), np.quantile(everything, 0.98) * 1.1
    bins = np.linspace(low, max(high, low + 1e-12), 41).tolist()
    styles = (("#dd8452", "-"), ("#55a868", "-"), ("#555555", "--"))
    for (name, values), (colour, line) in zip(distances.items(), styles, strict=False):
        weights = np.full(len(values), 1 / len(values))
        axes.hist(
            np.clip(values, low, bins[-1]),
            bins=bins,
            weights=weights,
            histtype="step",
            color=colour,
            linestyle=line,
            linewidth=1.6,
        )
        axes.plot([], [], color=colour, linestyle=line, label=f"{name} (median {np.median(values):.3g})")
    axes.set_xlabel(label)
    axes.set_ylabel("share")
    axes.legend(fontsize=9, frameon=False)
    return render(figure)


def scatters(
    panels: Mapping[str, Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64], str]]], label: str
) -> Picture:
    """A panel for each metric: points of several kinds against a common abscissa.

    Args:
        panels: By the name of the metric, then by kind: abscissae, ordinates, and what the legend adds.
        label: Of the abscissa.
    """
    columns = min(2, len(panels))
    lines = -(-len(panels) // columns)
    figure = _figure(5.2 * columns, 3.9 * lines)
    colours = ("#dd8452", "#4c72b0", "#55a868", "#222222", "#aaaaaa")
    for place, (name, kinds) in enumerate(panels.items()):
        axes = figure.add_subplot(lines, columns, place + 1)
        for (kind, (x, y, note)), colour in zip(kinds.items(), colours, strict=False):
            axes.scatter(x, y, s=6, alpha=0.5, color=colour, edgecolors="none", label=f"{kind}: {note}")
        axes.set_xlabel(label)
        axes.set_ylabel(name)
        axes.legend(fontsize=8, markerscale=2, framealpha=0.7)
    return render(figure)


def feature_spaces(panels: Mapping[str, Mapping[str, NDArray[np.float64]]], title: str) -> Picture:
    """A panel for each projection, with the points (N, 2) of each set.

    Args:
        panels: By the name of the projection, then by set: ``"training"``, ``"held-out"``, ``"generated"``.
        title: Of the whole.
    """
    figure = _figure(4.6 * len(panels), 4.6)
    figure.suptitle(title, fontsize=11)
    for place, (name, sets) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), place + 1)
        for kind, points in sets.items():
            axes.scatter(
                points[:, 0], points[:, 1], s=7, alpha=0.55, color=_COLOURS[kind], edgecolors="none", label=kind
            )
        axes.set_title(name, fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(fontsize=9, markerscale=2, framealpha=0.7)
    return render(figure)


def panels(count: int) -> tuple["Figure", list[Any]]:
    """A figure of ``count`` panels, at most three side by side."""
    columns = min(3, count)
    rows = -(-count // columns)
    figure = _figure(4.2 * columns, 3.0 * rows)
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _sheet(
    rows: int, columns: int, height: float, width: float = 2.0, left: float = 0.0
) -> tuple["Figure", Callable[[int, int], Any]]:
    figure = _figure(columns * width + left, rows * height + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False)
    for cell in axes.flat:
        cell.set_xticks([])
        cell.set_yticks([])
        for side in cell.spines.values():
            side.set_visible(False)
    return figure, lambda row, column: axes[row, column]


def _show(cell: Any, picture: Picture, text: str) -> None:
    cell.imshow(picture, interpolation="nearest")
    cell.set_xlabel(text, fontsize=8)


def render(figure: "Figure") -> Picture:
    """A figure as pixels, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
