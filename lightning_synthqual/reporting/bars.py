"""Scores against those of real images as small drawings, inline SVG."""

from math import isfinite, log10

_WIDTH, _HEIGHT, _EDGE = 160, 18, 6
_DECADES = 10.0  # how many times as much of one number than of the other takes a logarithmic axis
_ERRORS = 1.96  # standard errors of the whiskers, 95 % of a normal distribution


def bar(value: float, error: float | None, floor: float | None) -> str:
    """A value as a dot with whiskers of 95 %, and that of real images as a dashed line, on an axis from 0.

    The axis is logarithmic where they lie decades apart.

    Args:
        value: The value.
        error: Its standard error; ``None`` if it is unknown.
        floor: The value of real images; ``None`` if it is unknown: nothing is drawn.

    Returns:
        HTML; empty where there is nothing to compare.
    """
    if floor is None or not isfinite(value):
        return ""
    half = _ERRORS * (error or 0.0)
    logarithmic = min(value, floor) > 0 and max(value, floor) > _DECADES * min(value, floor)
    low, high = _ends(value, half, floor, logarithmic)

    def place(number: float) -> float:
        clipped = min(max(number, low), high)
        share = log10(clipped / low) / log10(high / low) if logarithmic else (clipped - low) / (high - low)
        return _EDGE + share * (_WIDTH - 2 * _EDGE)

    middle, at, real = _HEIGHT / 2, place(value), place(floor)
    axis = ", logarithmic axis" if logarithmic else ""
    words = f"{value:.3g} beside {floor:.3g} of real images{axis}"
    return (
        f'<svg class="bar" role="img" aria-label="{words}" viewBox="0 0 {_WIDTH} {_HEIGHT}"><title>{words}</title>'
        f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{middle}" y2="{middle}"/>'
        f'<line class="gap" x1="{real:.1f}" x2="{at:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<line class="floor" x1="{real:.1f}" x2="{real:.1f}" y1="1" y2="{_HEIGHT - 1}"/>'
        f'<line class="error" x1="{place(value - half):.1f}" x2="{place(value + half):.1f}" y1="{middle}" '
        f'y2="{middle}"/><circle cx="{at:.1f}" cy="{middle}" r="4"/></svg>'
    )


def _ends(value: float, half: float, floor: float, logarithmic: bool) -> tuple[float, float]:
    """The ends of the axis; never equal."""
    if logarithmic:
        return min(value, floor) / 1.5, max(value + half, floor) * 1.2
    low, high = min(0.0, value - half, floor), max(0.0, value + half, floor)
    return (low, high) if high > low else (low, low + 1.0)
