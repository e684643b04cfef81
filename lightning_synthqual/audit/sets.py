"""Faults of a set of images: which images it holds.

Each function says of which images the rows of the faulty set are made. They are drawn in the same order for any dose,
so that a smaller dose is part of a larger one.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Source(NamedTuple):
    """What one row of a faulty set is made of.

    Args:
        parts: ``("tested", index)`` or ``("reference", index)``; several parts: the rounded mean of their pixels.
    """

    parts: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Sets:
    """The sets that a fault chooses from.

    Args:
        count: Number of tested images.
        reference_count: Number of reference images.
        groups: Group of each tested image, integers (count,).
    """

    count: int
    reference_count: int
    groups: Tensor | None


def blend(sets: Sets, dose: float, generator: torch.Generator) -> list[Source]:
    """A share ``dose`` of the images is replaced by the mean of itself and another one."""
    _at_least(sets.count, 2, "blend")
    order = _order(sets.count, generator)
    partner = dict(zip(order, order[1:] + order[:1], strict=True))
    affected = set(order[: _share(dose, sets.count)])
    return [
        Source((("tested", row), ("tested", partner[row]))) if row in affected else _tested(row)
        for row in range(sets.count)
    ]


def mode_drop(sets: Sets, dose: float, generator: torch.Generator) -> list[Source]:
    """A share ``dose`` of the groups is lost, the rarest first, at least one and never all: the set becomes smaller."""
    if sets.groups is None or len(sets.groups) != sets.count:
        raise ValueError(f"The fault 'mode_drop' needs `groups`: one group for each of the {sets.count} tested images.")
    names = sorted({int(group) for group in sets.groups})
    _at_least(len(names), 2, "mode_drop", "groups")
    sizes = {name: int((sets.groups == name).sum()) for name in names}
    rarest = sorted((names[index] for index in _order(len(names), generator)), key=lambda name: sizes[name])
    lost = set(rarest[: min(_share(dose, len(names)), len(names) - 1)])
    return [_tested(row) for row, group in enumerate(sets.groups.tolist()) if group not in lost]


def duplication(sets: Sets, dose: float, generator: torch.Generator) -> list[Source]:
    """A share ``dose`` of the images is replaced by repeats of the others, each of which is repeated equally often."""
    _at_least(sets.count, 2, "duplication")
    order = _order(sets.count, generator)
    lost = min(_share(dose, sets.count), sets.count - 1)
    kept = order[lost:][::-1]  # the last of the order is kept by all doses
    rows = list(range(sets.count))
    for at, row in enumerate(order[:lost]):
        rows[row] = kept[at % len(kept)]
    return [_tested(row) for row in rows]


def copying(sets: Sets, dose: float, generator: torch.Generator) -> list[Source]:
    """A share ``dose`` of the images is replaced by copies of reference images; 1: all are copies."""
    _at_least(sets.reference_count, 1, "copying", "reference images")
    order, originals = _order(sets.count, generator), _order(sets.reference_count, generator)
    rows = [_tested(row) for row in range(sets.count)]
    for at, row in enumerate(order[: _share(dose, sets.count)]):
        rows[row] = Source((("reference", originals[at % len(originals)]),))
    return rows


def _tested(row: int) -> Source:
    return Source((("tested", row),))


def _order(count: int, generator: torch.Generator) -> list[int]:
    drawn: list[int] = torch.randperm(count, generator=generator).tolist()
    return drawn


def _share(dose: float, count: int) -> int:
    return min(max(round(dose * count), 1), count)


def _at_least(count: int, needed: int, fault: str, what: str = "tested images") -> None:
    if count < needed:
        raise ValueError(f"The fault {fault!r} needs at least {needed} {what}, but there are {count}.")
