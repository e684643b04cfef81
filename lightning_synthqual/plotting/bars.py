"""Bars with error bars, a panel for each metric: which classes are good, and which are not."""

from lightning_synthqual.metrics.figures import Bar, Bars
from lightning_synthqual.plotting.canvas import Pixels, panels, render

_COLOUR = "#4c72b0"
_MOST = 40  # bars of a panel that can be read: of more, the first and the last ones are shown
_HEIGHT = 0.19  # inches of a bar


def bars(figure: Bars) -> Pixels:
    """Draw bars from top to bottom in their order, with one standard error to either side.

    Of more than 40 bars the 20 first and the 20 last ones are drawn.
    """
    shown = {name: _shown(each) for name, each in figure.panels.items()}
    tallest = max(len(each) for each in shown.values())
    canvas, cells = panels(len(shown), columns=3, width=3.6, height=1.1 + _HEIGHT * tallest)
    if figure.title:
        canvas.suptitle(figure.title, fontsize=11)
    for axes, (name, each) in zip(cells, shown.items(), strict=True):
        places = list(range(len(each)))
        axes.barh(places, [bar.value for bar in each], color=_COLOUR, height=0.72)
        known = [(place, bar) for place, bar in zip(places, each, strict=True) if bar.error is not None]
        axes.errorbar(
            [bar.value for _, bar in known],
            [place for place, _ in known],
            xerr=[bar.error for _, bar in known],
            fmt="none",
            ecolor="#222222",
            capsize=2,
            linewidth=1,
        )
        axes.set_yticks(places, [bar.name for bar in each], fontsize=8)
        axes.set_ylim(tallest - 0.4, -0.6)
        axes.set_title(name if len(each) == len(figure.panels[name]) else f"{name} (best and worst)", fontsize=10)
    return render(canvas)


def _shown(each: tuple[Bar, ...]) -> tuple[Bar, ...]:
    return each if len(each) <= _MOST else each[: _MOST // 2] + each[-_MOST // 2 :]
