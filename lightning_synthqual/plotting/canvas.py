"""Empty figures and finished pixels; matplotlib is imported when the first figure is drawn."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]
_DPI = 100
BLUE, ORANGE, BLACK = "#0072b2", "#e69f00", "#101820"  # told apart with any colour vision
COLOURS, MARKERS, DASHES = (BLUE, ORANGE, BLACK), ("o", "s", "^", "D", "v"), ("-", "--", ":")
DECADES = 30.0  # how many times as large as the smallest the largest value is, from which an axis is logarithmic


def spans_decades(values: NDArray[np.float64]) -> bool:
    """Whether positive values (N,) lie so far apart that they are drawn on a logarithmic axis."""
    return len(values) > 0 and bool(values.min() > 0) and bool(values.max() > DECADES * values.min())


def blank(width: float, height: float) -> "Figure":
    """A figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def panels(count: int, columns: int = 3, width: float = 4.2, height: float = 3.0) -> tuple["Figure", list[Any]]:
    """A figure of ``count`` panels, at most ``columns`` side by side."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = blank(width * columns, height * rows)
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


def render(figure: "Figure") -> Pixels:
    """A figure as pixels, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
