"""The curve of one metric under one fault, as inline SVG."""

import math
from html import escape

from lightning_synthqual.audit.reading import Reading, Words, number

_WIDTH, _HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 42  # margins for the labels


def baseline(reading: Reading, untouched: float | None = None) -> float:
    """The value of untouched images.

    Args:
        reading: What is drawn.
        untouched: The value, if the audit has a cell for it.
    """
    return reading.cells[0].value - reading.cells[0].change if untouched is None else untouched


def curve(reading: Reading, words: Words, untouched: float | None = None) -> str:
    """The value by dose with its error, and a line for untouched images.

    A value is that of untouched images plus the change, so that a fault that drops images is not mixed with the effect
    of having fewer of them. Filled: told as worse; triangle: told as better; hollow: not told.

    Args:
        reading: What is drawn.
        words: Doses in words.
        untouched: The value of untouched images, if the audit has a cell for it.
    """
    zero = baseline(reading, untouched)
    points = [(zero + cell.change, cell.change_std or 0.0, cell.told) for cell in reading.cells]
    finite = [(value, error) for value, error, _ in points if math.isfinite(value) and math.isfinite(error)]
    low = min([zero, *(value - error for value, error in finite)])
    high = max([zero, *(value + error for value, error in finite)])
    span = (high - low) or abs(high) or 1.0
    if high == low:
        low, high = low - span / 2, high + span / 2
    inner = _HEIGHT - _TOP - _BOTTOM

    def down(value: float) -> float:
        return round(_TOP + (high - value) / (high - low) * inner, 1)

    step = (_WIDTH - _LEFT - _RIGHT) / len(points)
    at = [round(_LEFT + (index + 0.5) * step, 1) for index in range(len(points))]
    shown = [
        _point(x, down(value), down(value + error), down(value - error), told)
        for x, (value, error, told) in zip(at, points, strict=True)
        if math.isfinite(value) and math.isfinite(error)
    ]
    line = " ".join(f"{x},{down(value)}" for x, (value, _, _) in zip(at, points, strict=True) if math.isfinite(value))
    labels = [_text(x, _HEIGHT - 24, f"{cell.dose:g}") for x, cell in zip(at, reading.cells, strict=True)]
    heights = [value for value in (high, low) if abs(value - zero) > 0.12 * (high - low)]  # no label on another
    labels += [_text(_LEFT - 6, down(value) + 4, f"{value:.3g}", "end") for value in (*heights, zero)]
    labels.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, words.unit(reading.fault)))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(_alternative(reading, words, zero))}">'
        f'<path class="zero" d="M{_LEFT} {down(zero)}H{_WIDTH - _RIGHT}"/><polyline points="{line}"/>'
        f"{''.join(shown)}{''.join(labels)}</svg>"
    )


def _point(x: float, y: float, top: float, bottom: float, told: str | None) -> str:
    bar = f'<path d="M{x} {top}V{bottom}"/>'
    if told == "better":
        return f'{bar}<path class="better" d="M{x - 6:.1f} {y + 5:.1f}h12l-6-11z"/>'
    return f'{bar}<circle class="{told or "none"}" cx="{x}" cy="{y}" r="4.5"/>'


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _alternative(reading: Reading, words: Words, zero: float) -> str:
    doses = (
        f"{words.dose(reading.fault, cell.dose)}: {number(zero + cell.change, cell.change_std)}"
        + (f", told as {cell.told}" if cell.told else "")
        for cell in reading.cells
    )
    return f"Untouched: {zero:.4g}. {'; '.join(doses)}."
