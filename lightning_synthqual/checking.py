"""Arguments are compared with a declaration of their type and limits, when they are given."""

import math
import numbers
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SHOWN = 80  # characters of a wrong value in an error


@dataclass(frozen=True)
class Rule:
    """What a value may be.

    Args:
        kind: ``int``, ``float`` (any finite real number), ``bool``, ``str`` (not empty), ``Path`` (a path, or a string
            that is one), ``Mapping``, ``Sequence`` (no string), ``Callable``, another class, or a tuple of those;
            ``None``: any value. A ``bool`` is never a number.
        low: Smallest number.
        high: Largest number.
        above: Exclusive lower limit.
        choices: The only values.
        pattern: Regular expression that a string must match as a whole.
        items: Rule of each item of a sequence, or of each value of a mapping.
        length: Number of items of a sequence.
        optional: Whether ``None`` is a value.
        refused: Classes whose instances are of the wrong type.
        hint: Sentence that is added to each error: how to fix it.
        expected: Description of the allowed values, in place of the generated one.

    Example:
        >>> Rule(int, low=1).check("patience", 3)
        3
        >>> Rule(int, low=1).check("patience", "3")
        Traceback (most recent call last):
        TypeError: `patience` must be an integer of at least 1, but got '3'.
    """

    kind: Any = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[Any, ...] | None = None
    pattern: str | None = None
    items: "Rule | None" = None
    length: int | None = None
    optional: bool = False
    refused: tuple[type, ...] = ()
    hint: str = ""
    expected: str = ""

    def check(self, name: str, value: Any) -> Any:
        """Return the value, as a plain Python number where it is one.

        Args:
            name: Argument that the errors name.
            value: Value to check.

        Returns:
            ``value``; NumPy's integers, floats and booleans become Python's.

        Raises:
            TypeError: If it is of the wrong type.
            ValueError: If it is outside the limits.
        """
        if value is None and self.optional:
            return None
        if self.choices is not None:
            if not any(type(value) is type(choice) and value == choice for choice in self.choices):
                raise ValueError(self._message(name, value))
            return value
        found = self._typed(value)
        if found is _WRONG:
            raise TypeError(self._message(name, value))
        if not self._within_limits(found):
            raise ValueError(self._message(name, value))
        return self._checked_items(name, found)

    def describe(self) -> str:
        """The allowed values in words."""
        if self.expected:
            return f"{self.expected}, or None" if self.optional else self.expected
        if self.choices is not None:
            return _alternatives([*map(repr, self.choices), *(["None"] if self.optional else [])])
        words = _alternatives([_name(kind) for kind in self._kinds] or ["a value"])
        limits = [(f"of at least {self.low}", self.low), (f"of at most {self.high}", self.high)]
        words = " ".join([words, *(text for text, limit in limits if limit is not None)])
        words += f" above {self.above}" if self.above is not None else ""
        words += f" matching {self.pattern}" if self.pattern is not None else ""
        words += f" of {self.length} items" if self.length is not None else ""
        words += f", each {self.items.describe()}" if self.items is not None else ""
        return f"{words}, or None" if self.optional else words

    @property
    def _kinds(self) -> tuple[Any, ...]:
        return self.kind if isinstance(self.kind, tuple) else () if self.kind is None else (self.kind,)

    def _typed(self, value: Any) -> Any:
        if isinstance(value, self.refused):
            return _WRONG
        if not self._kinds:
            return value
        readings = (_READERS.get(kind, _instance_of(kind))(value) for kind in self._kinds)
        return next((found for found in readings if found is not _WRONG), _WRONG)

    def _within_limits(self, value: Any) -> bool:
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if isinstance(value, str) and not value.strip():
            return False
        if isinstance(value, str) and self.pattern is not None:
            return re.fullmatch(self.pattern, value) is not None
        if isinstance(value, int | float):
            return (
                (self.low is None or value >= self.low)
                and (self.high is None or value <= self.high)
                and (self.above is None or value > self.above)
            )
        return self.length is None or not isinstance(value, Sequence) or len(value) == self.length

    def _checked_items(self, name: str, value: Any) -> Any:
        if self.items is None or isinstance(value, str):
            return value
        if isinstance(value, Mapping):
            return {key: self.items.check(f"{name}[{key!r}]", item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return tuple(self.items.check(f"{name}[{index}]", item) for index, item in enumerate(value))
        return value

    def _message(self, name: str, value: Any) -> str:
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}... ({type(value).__name__})"
        return f"`{name}` must be {self.describe()}, but got {shown}." + (f" {self.hint}" if self.hint else "")


def check(name: str, value: Any, kind: Any = None, **limits: Any) -> Any:
    """Check one value; see `Rule` for the limits.

    Args:
        name: Argument that the errors name.
        value: Value to check.
        kind: Type, as in `Rule`.
        **limits: Further arguments of `Rule`.

    Returns:
        ``value``; NumPy's integers, floats and booleans become Python's.

    Raises:
        TypeError: If it is of the wrong type.
        ValueError: If it is outside the limits.

    Example:
        >>> check("min_delta", 1, float, low=0)
        1.0
    """
    return Rule(kind, **limits).check(name, value)


def check_all(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Check each value that has a rule.

    Args:
        values: Values by argument name, for example ``locals()``.
        rules: Rules by argument name.

    Returns:
        The checked values of ``rules``' names.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is outside its limits.

    Example:
        >>> check_all({"k": 3, "other": None}, {"k": Rule(int, low=1)})
        {'k': 3}
    """
    return {name: rule.check(name, values[name]) for name, rule in rules.items()}


_WRONG = object()  # marks a value of the wrong type, since None may be right


def _integer(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        return _WRONG
    return operator.index(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return _WRONG
    try:
        return float(value)
    except OverflowError:
        return math.inf  # which is outside all limits


def _flag(value: Any) -> Any:
    is_numpy = type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_")
    return bool(value) if isinstance(value, bool) or is_numpy else _WRONG


def _sequence(value: Any) -> Any:
    return value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else _WRONG


def _path(value: Any) -> Any:
    return value if isinstance(value, str | Path) else _WRONG


def _callable(value: Any) -> Any:
    return value if callable(value) else _WRONG


_READERS: dict[Any, Callable[[Any], Any]] = {
    int: _integer,
    float: _number,
    bool: _flag,
    Sequence: _sequence,
    Path: _path,
    Callable: _callable,
}
_NAMES: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    bool: "True or False",
    str: "a non-empty string",
    Mapping: "a mapping",
    Sequence: "a list or tuple",
    Path: "a path",
    Callable: "a callable",
}


def _instance_of(kind: Any) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, kind) else _WRONG


def _name(kind: Any) -> str:
    return _NAMES.get(kind, f"an instance of {getattr(kind, '__name__', kind)}")


def _alternatives(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
