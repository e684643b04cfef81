"""Reports side by side, for a terminal, as Markdown, as CSV and as HTML."""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_synthqual.metrics.base import SUFFIXES, Direction
from lightning_synthqual.metrics.difference import SURE, Difference
from lightning_synthqual.reporting.html import document, table
from lightning_synthqual.reporting.numbers import SIGNS, with_error

if TYPE_CHECKING:
    from lightning_synthqual.evaluation.report import Report

_BOLD, _PLAIN = "\033[1m", "\033[0m"


class Value(NamedTuple):
    """A value of a report, its standard error, and the value of held-out real images, as far as they are known."""

    value: float
    std: float | None = None
    floor: float | None = None

    @classmethod
    def of(cls, report: "Report", name: str) -> "Value":
        """The value of this name."""
        scalars = report.scalars
        return cls(scalars[name], scalars.get(f"{name}_std"), scalars.get(f"{name}_floor"))


class Row(NamedTuple):
    """Values that were measured in the same way: of each report, and the further reports minus the first.

    Attributes:
        name: Name of the metric.
        direction: Its direction.
        values: A value of each report; ``None`` where it has none.
        differences: A difference of each report but the first.
    """

    name: str
    direction: Direction | None
    values: tuple[Value | None, ...]
    differences: tuple[Difference | None, ...]

    @property
    def best(self) -> set[int]:
        """Places of the best of several values; none where neither low nor high values are better."""
        values = [each.value for each in self.values if each is not None]
        if self.direction is None or len(values) < 2:
            return set()
        best = min(values) if self.direction == "min" else max(values)
        return {place for place, each in enumerate(self.values) if each is not None and each.value == best}


@dataclass(frozen=True)
class SideBySide:
    """Reports side by side.

    Args:
        titles: What the reports are called; they get letters besides.
        rows: The rows.
        notes: Lines below the table.
    """

    titles: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    @property
    def heads(self) -> list[str]:
        """Titles of the reports' columns."""
        return [f"{letter(place)}: {title}" for place, title in enumerate(self.titles)]

    @property
    def changes(self) -> list[str]:
        """Titles of the columns of differences."""
        return [f"{letter(place)} - {letter(0)}" for place in range(1, len(self.titles))]

    @property
    def has_floors(self) -> bool:
        """Whether a value of real images is known."""
        return any(each is not None and each.floor is not None for row in self.rows for each in row.values)


class _Cell(NamedTuple):
    text: str
    best: bool = False


def letter(place: int) -> str:
    """What the report at a place is called: A to Z, then A1 and so on."""
    return chr(ord("A") + place % 26) + (str(place // 26) if place >= 26 else "")


def restricted(report: "Report", metrics: Collection[str]) -> "Report":
    """The report of these metrics alone."""
    kept = {name + ending for name in metrics for ending in ("", *SUFFIXES)}
    return replace(report, scalars={name: value for name, value in report.scalars.items() if name in kept})


def verdict(difference: Difference, direction: Direction | None) -> str:
    """A word on a difference: better or worse beyond two standard errors, else tie; empty if no error is known.

    Example:
        >>> verdict(Difference(-0.5, 0.2, True), "min"), verdict(Difference(-0.5, 0.5, True), "min")
        ('better', 'tie')
    """
    if difference.value == 0:
        return "tie"
    if difference.z is None:
        return ""
    if abs(difference.z) <= SURE:
        return "tie"
    if direction is None:
        return "differs"
    return "better" if (difference.value < 0) == (direction == "min") else "worse"


def explanation(differences: Iterable[Difference]) -> str:
    """What the columns of differences mean, in a line."""
    known = [each for each in differences if each.std is not None]
    paired = " (paired: what both have in common cancels)" if known and all(each.paired for each in known) else ""
    return (
        f"Differences are of each further report minus the first. ± is the standard error{paired}, z the difference in "
        f"standard errors: better or worse beyond {SURE:g} of them, else a tie."
    )


def terminal(compared: SideBySide, bold: bool = False) -> str:
    """Columns as wide as their widest cells, and the notes.

    Args:
        compared: The reports.
        bold: Whether the best values are printed in bold.
    """
    rows = [[_Cell(head) for head in _heads(compared)], *_cells(compared)]
    widths = [max(len(cell.text) for cell in column) for column in zip(*rows, strict=True)]

    def padded(cell: _Cell, width: int) -> str:
        text = f"{_BOLD}{cell.text}{_PLAIN}" if bold and cell.best else cell.text
        return text + " " * (width - len(cell.text))

    lines = ["  ".join(map(padded, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, *compared.notes])


def markdown(compared: SideBySide) -> str:
    """A table with the best values in bold, and the notes as a list."""
    rows = [[f"**{cell.text}**" if cell.best else cell.text for cell in row] for row in _cells(compared)]
    heads = _heads(compared)
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n".join([text, *(["", *(f"- {note}" for note in compared.notes)] if compared.notes else [])])


def html(compared: SideBySide) -> str:
    """A whole page, the best values in bold."""
    rows = [
        [f"<strong>{escape(cell.text)}</strong>" if cell.best else escape(cell.text) for cell in row]
        for row in _cells(compared)
    ]
    notes = [f'<p class="quiet">{escape(note)}</p>' for note in compared.notes]
    title = " and ".join(compared.titles)
    heading = f"<h1>{escape(title)}</h1>"
    return document(title, "\n".join([heading, table(_heads(compared), rows), *notes])).rstrip("\n")


def plain_csv(compared: SideBySide) -> str:
    """All digits, errors in columns of their own; undefined cells stay empty, and the notes are left out."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    parts = ("", " std", *([" floor"] if compared.has_floors else []))
    measures = ("", " std", " z", " paired", " verdict")
    heads = [head + part for head in compared.heads for part in parts]
    writer.writerow(["metric", "direction", *heads, *(head + part for head in compared.changes for part in measures)])
    for row in compared.rows:
        values = [cell for each in row.values for cell in (each or (None,) * 3)[: len(parts)]]
        writer.writerow([row.name, row.direction, *values, *_measures(row)])
    return text.getvalue().rstrip("\n")


def _measures(row: Row) -> Iterator[Any]:
    for each in row.differences:
        if each is None:
            yield from (None,) * 5
        else:
            yield from (each.value, each.std, each.z, each.paired, verdict(each, row.direction))


def _heads(compared: SideBySide) -> list[str]:
    floors = ["real images"] if compared.has_floors else []
    changes = [head for change in compared.changes for head in (change, "z", f"{change.split()[0]} is")]
    return ["metric", *compared.heads, *floors, *changes]


def _cells(compared: SideBySide) -> Iterator[list[_Cell]]:
    for row in compared.rows:
        best = row.best
        yield [
            _Cell(f"{row.name} {SIGNS[row.direction]}".rstrip()),
            *(
                _Cell("" if each is None else with_error(each.value, each.std), place in best)
                for place, each in enumerate(row.values)
            ),
            *([_Cell(_floors(row))] if compared.has_floors else []),
            *(_Cell(text) for each in row.differences for text in _change(each, row.direction)),
        ]


def _floors(row: Row) -> str:
    """The values of real images, which are one where the reports have the same reference."""
    known = [f"{each.floor:.4g}" for each in row.values if each is not None and each.floor is not None]
    return " / ".join(dict.fromkeys(known))


def _change(difference: Difference | None, direction: Direction | None) -> tuple[str, str, str]:
    if difference is None:
        return "", "", ""
    z = "" if difference.z is None else f"{difference.z:+.1f}"
    return with_error(difference.value, difference.std, signed=True), z, verdict(difference, direction)


FORMATS: Mapping[str, Callable[[SideBySide], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "csv": plain_csv,
    "html": html,
}
