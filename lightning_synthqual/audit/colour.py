"""How much of what a metric tells is colour."""

from collections.abc import Iterable
from math import isfinite
from typing import NamedTuple


class Seen(NamedTuple):
    """A dose that a metric tells.

    Args:
        extractor: The extractor.
        metric: The metric.
        change: Change of the value from that of untouched images.
        grey_change: The same where tested and reference images are greyed.
    """

    extractor: str
    metric: str
    change: float
    grey_change: float


def colour_shares(seen: Iterable[Seen], columns: Iterable[tuple[str, str]] = ()) -> dict[str, dict[str, float | None]]:
    """The part of the changes that is gone in grey images, by extractor and metric.

    It is 1 - sum of D(grey) / sum of D over the doses that are told, the values of untouched images subtracted; changes
    count in the direction in which they were told. 0: the metric ignores colour; 1: it sees colour alone.

    Args:
        seen: The doses that are told; those whose score is undefined in grey images are left out.
        columns: Extractor and metric of all metrics. Where nothing is told the share is ``None``, and so it is where
            all images, faulty ones too, are grey: they cannot say what a metric makes of colour.

    Example:
        >>> colour_shares([Seen("pixels", "fd", 2.0, 0.5), Seen("pixels", "fd", -2.0, -0.5)], [("pixels", "kd")])
        {'pixels': {'kd': None, 'fd': 0.75}}
    """
    sums: dict[tuple[str, str], list[float]] = {}
    for each in seen:
        if not isfinite(each.grey_change):
            continue
        total = sums.setdefault((each.extractor, each.metric), [0.0, 0.0])
        total[0] += abs(each.change)
        total[1] += each.grey_change if each.change > 0 else -each.grey_change
    shares: dict[str, dict[str, float | None]] = {}
    for extractor, metric in columns:
        shares.setdefault(extractor, {})[metric] = None
    for (extractor, metric), (change, grey) in sums.items():
        shares.setdefault(extractor, {})[metric] = 1 - grey / change
    return shares
