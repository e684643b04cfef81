"""Options of metrics: their defaults, and which values they take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_synthqual.checking import Rule


@dataclass(frozen=True)
class Option:
    """One option of a metric.

    Args:
        default: Value where the user gives none.
        rule: Values that are allowed.
    """

    default: Any
    rule: Rule


Options = Mapping[str, Option]


def option(default: Any, kind: Any = None, **limits: Any) -> Option:
    """An option of the default's type; ``None`` is allowed where it is the default.

    Args:
        default: Value where the user gives none.
        kind: Type, where the default does not say.
        **limits: Further arguments of `Rule`.

    Example:
        >>> option(3, low=1).rule.describe()
        'an integer of at least 1'
    """
    kind = kind or (None if default is None or "choices" in limits else type(default))
    return Option(default, Rule(kind, optional=default is None, **limits))


def complete(options: Options, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The given values and, for the others, the defaults.

    Args:
        options: Options that there are.
        given: Values by option name.
        where: Expression by which users give them, for messages: ``options['kid']``.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If an option is unknown, or a value is out of bounds.
    """
    for name in given:
        if name not in options:
            raise ValueError(f"`{where}` has no option {name!r}; it takes: {', '.join(options) or 'none'}.")
    return {
        name: each.rule.check(f"{where}[{name!r}]", given[name]) if name in given else each.default
        for name, each in options.items()
    }
