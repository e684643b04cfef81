"""What values mean, as data for sentences."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """How a value of a metric is put into words.

    Sentences may name values of the same metric in braces: ``{copy_fraction:count}`` is "43 of 240",
    ``{copy_fraction:share}`` is "18 %", ``{copy_fraction}`` the number.

    Args:
        meaning: What a value that is worse than that of real images says; empty for nothing.
        alarm: Sentence for a value beyond its alarm; empty for a general one.
        clear: Sentence for a value with an alarm that is not beyond it; empty for none.
    """

    meaning: str = ""
    alarm: str = ""
    clear: str = ""


class Shown:
    """A value for the braces of a sentence.

    Args:
        value: The value.
        count: Number of images that it is a share of; ``None`` if it is unknown.

    Example:
        >>> "{share:count}, {share:share}".format(share=Shown(0.179, 240))
        '43 of 240, 18 %'
    """

    def __init__(self, value: float, count: int | None) -> None:
        self._value = value
        self._count = count

    def __format__(self, spec: str) -> str:
        if spec == "count":
            return "Some" if self._count is None else f"{round(self._value * self._count)} of {self._count}"
        return percent(self._value) if spec == "share" else format(self._value, spec or ".3g")


def percent(share: float) -> str:
    """A share in percent, to two digits at most.

    Example:
        >>> percent(0.1792), percent(0.00413), percent(0.034), percent(1.0)
        ('18 %', '0.4 %', '3.4 %', '100 %')
    """
    value = 100 * share
    return f"{value:{'.0f' if abs(value) >= 10 else '.1f' if abs(value) >= 1 else '.1g'}} %"


def filled(sentence: str, values: Mapping[str, float], count: int | None) -> str | None:
    """A sentence with its values; ``None`` if one of them is unknown.

    Args:
        sentence: Sentence with names of values in braces.
        values: Values by name.
        count: Number of generated images.
    """
    try:
        return sentence.format_map({name: Shown(value, count) for name, value in values.items()})
    except KeyError:
        return None
