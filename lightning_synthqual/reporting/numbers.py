"""Numbers as people read them: an error to two significant digits, and the value to match."""

from math import floor, isfinite, log10

_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (1, "bytes"))
SIGNS = {"min": "↓", "max": "↑", None: ""}  # of what is better
_MOST_PLACES = 6  # after the point, and as many digits before it, before exponents are shorter


def with_error(value: float, error: float | None, *, signed: bool = False) -> str:
    """A value and its standard error.

    Args:
        value: The value.
        error: Its standard error; ``None`` if it is unknown.
        signed: Whether positive values have a plus sign, as those of changes do.

    Example:
        >>> with_error(12.34567, 0.256), with_error(-0.6182, 0.0523), with_error(0.25, None)
        ('12.35 ± 0.26', '-0.618 ± 0.052', '0.25')
    """
    sign = "+" if signed else ""
    if not error or not isfinite(error):
        return f"{value:{sign}.4g}" + ("" if error is None else f" ± {error:.2g}")
    order = _order(error)
    digits = _order(max(abs(value), error)) - order + 1
    if digits > _MOST_PLACES:
        return f"{value:{sign}.{_MOST_PLACES}g} ± {error:.2g}"
    places = 1 - order
    if not -_MOST_PLACES < places <= _MOST_PLACES:
        return f"{value:{sign}.{digits}e} ± {error:.1e}"
    return f"{round(value, places):{sign}.{max(places, 0)}f} ± {round(error, places):.{max(places, 0)}f}"


def _order(number: float) -> int:
    """The power of ten of a number's first digit, once it is rounded to two digits."""
    return floor(log10(float(f"{number:.1e}")))


def readable(size: int) -> str:
    """A number of bytes with its unit.

    Example:
        >>> readable(3 * 2**29), readable(5)
        ('1.5 GiB', '5 bytes')
    """
    unit, name = next((unit, name) for unit, name in _UNITS if size >= unit or unit == 1)
    return f"{size / unit:.3g} {name}"
