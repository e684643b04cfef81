"""What the cells of an audit say about one metric and one fault."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lightning_synthqual.audit.faults import FAULTS
from lightning_synthqual.audit.passport import Audit, Cell
from lightning_synthqual.metrics.catalogue import CATALOGUE
from lightning_synthqual.reporting.numbers import with_error

Kind = Literal["seen", "partly", "better", "blind", "unchanged"]
_SINGULAR = {"grey levels": "grey level", "degrees": "degree", "bits lost": "bit lost"}
_ON_INCEPTION = {"fd": "fid", "kd": "kid", "kd_rbf": "kid_rbf"}


class Column(NamedTuple):
    """One metric on the features of one extractor."""

    extractor: str
    metric: str

    @property
    def name(self) -> str:
        """The name that ``metrics=`` takes, for example ``fd_wavelet``."""
        metric = _ON_INCEPTION.get(self.metric, self.metric) if self.extractor == "inception" else self.metric
        entry = CATALOGUE.get(metric)
        return metric if entry is not None and entry.extractor == self.extractor else f"{metric}_{self.extractor}"


@dataclass(frozen=True)
class Reading:
    """One metric under one fault.

    Args:
        column: The metric.
        fault: The fault.
        cells: Its cells, by increasing dose, without dose 0.
    """

    column: Column
    fault: str
    cells: tuple[Cell, ...]

    @property
    def seen_from(self) -> Cell | None:
        """The smallest dose that is told as worse, as all larger ones are."""
        found = None
        for cell in reversed(self.cells):
            if cell.told != "worse":
                break
            found = cell
        return found

    @property
    def better(self) -> tuple[Cell, ...]:
        """The doses that are told as better than untouched images."""
        return tuple(cell for cell in self.cells if cell.told == "better")

    @property
    def told(self) -> Cell | None:
        """The smallest dose that is told, as worse or as better."""
        return next((cell for cell in self.cells if cell.told is not None), None)

    @property
    def kind(self) -> Kind:
        """``seen`` (see `seen_from`), ``better`` at some dose, ``partly`` (worse at some doses only), or ``blind``.

        ``unchanged``: the fault did not change these images. A metric that tells small doses as better and larger ones
        as worse is ``seen``.
        """
        if all(cell.psnr is not None and math.isinf(cell.psnr) for cell in self.cells):
            return "unchanged"
        if self.seen_from is not None:
            return "seen"
        if self.better:
            return "better"
        return "partly" if self.told is not None else "blind"

    @property
    def rank(self) -> int | None:
        """Position of the smallest seen dose, from 1; ``None`` if it is not seen."""
        seen = self.seen_from
        return None if seen is None else 1 + self.cells.index(seen)


Readings = Mapping[str, Mapping[Column, Reading]]  # by fault and metric


def readings(audit: Audit) -> dict[str, dict[Column, Reading]]:
    """What an audit says, by fault and metric, in the order of its cells.

    Args:
        audit: The audit.
    """
    found: dict[str, dict[Column, list[Cell]]] = {}
    for cell in audit.cells:
        if cell.dose > 0:
            found.setdefault(cell.fault, {}).setdefault(Column(cell.extractor, cell.metric), []).append(cell)
    return {
        fault: {
            column: Reading(column, fault, tuple(sorted(cells, key=lambda cell: cell.dose)))
            for column, cells in row.items()
        }
        for fault, row in found.items()
    }


def columns_of(rows: Readings) -> list[Column]:
    """All metrics, those of one extractor next to each other."""
    found = dict.fromkeys(column for row in rows.values() for column in row)
    extractors = list(dict.fromkeys(column.extractor for column in found))
    return sorted(found, key=lambda column: extractors.index(column.extractor))


class Words:
    """Doses and faults in words.

    Args:
        protocol: The protocol of an audit, whose ``faults`` give units and descriptions.
    """

    def __init__(self, protocol: Mapping[str, Any]) -> None:
        self._faults = protocol.get("faults") or {}

    @staticmethod
    def fault(name: str) -> str:
        """The name as a word."""
        return name.replace("_", " ")

    def description(self, name: str) -> str:
        """What a fault does."""
        return self._known(name, "description") or self.fault(name)

    def unit(self, name: str) -> str:
        """What its doses count."""
        return self._known(name, "unit") or "dose"

    def dose(self, name: str, dose: float) -> str:
        """A dose with its unit, for example ``2 px`` or ``25 % of the images``."""
        unit = self.unit(name)
        if unit.startswith("share of "):
            return f"{100 * dose:.3g} % of {unit.removeprefix('share of ')}"
        if unit == "dose":
            return f"dose {dose:g}"
        return f"{dose:g} {_SINGULAR.get(unit, unit) if dose == 1 else unit}"

    def cell(self, cell: Cell) -> str:
        """The dose of a cell, with its PSNR if there is one."""
        return self.dose(cell.fault, cell.dose) + (f" ({cell.psnr:.0f} dB)" if _is_finite(cell.psnr) else "")

    def _known(self, name: str, what: str) -> str:
        given = self._faults.get(name) if isinstance(self._faults, Mapping) else None
        if isinstance(given, Mapping) and given.get(what):
            return str(given[what])
        return str(getattr(FAULTS[name], what)) if name in FAULTS else ""


def number(value: float, error: float | None, *, signed: bool = False) -> str:
    """A value with its error; a metric may be undefined on some set."""
    return with_error(value, error, signed=signed) if math.isfinite(value) else "undefined"


def listed(words: Iterable[str], last: str = "and") -> str:
    """Words with commas, and ``last`` before the last of them."""
    found = list(words)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} {last} {found[-1]}" if found else ""


def shortened(words: Sequence[str], most: int) -> str:
    """At most so many words, and how many more there are."""
    return listed(words) if len(words) <= most else f"{', '.join(words[:most])} and {len(words) - most} more"


def _is_finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)
