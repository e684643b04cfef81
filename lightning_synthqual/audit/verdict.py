"""An audit in sentences.

Thresholds: a dose is told if the change is larger than three standard errors. A metric *sees* a fault from the smallest
dose on from which all doses are told as worse. The number of images that a smaller dose would need follows from the
error, which falls as one over the square root of the number of images; it is only given where the change is at least
1.5 standard errors, since it would be too uncertain otherwise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_synthqual.audit.cover import Cover, cheapest_cover
from lightning_synthqual.audit.passport import Audit
from lightning_synthqual.audit.reading import (
    Column,
    Kind,
    Reading,
    Readings,
    Words,
    columns_of,
    listed,
    readings,
    shortened,
)

_CERTAIN = 3.0  # standard errors of a dose that is told
_HINT = 1.5  # standard errors from which the number of images is estimated
_MOST = 4  # faults in a sentence about numbers of images
_HARDLY, _MAINLY = 0.1, 0.5  # colour shares


@dataclass(frozen=True)
class Verdict:
    """What an audit says, in sentences.

    Args:
        sentences: About all metrics together.
        by_metric: About each metric, by its name in ``metrics=``.
        metrics: Names of the recommended metrics, for ``metrics=``.
    """

    sentences: tuple[str, ...]
    by_metric: Mapping[str, tuple[str, ...]]
    metrics: tuple[str, ...]

    @property
    def line(self) -> str:
        """The recommendation as an argument; empty if no metric sees anything."""
        names = ", ".join(f'"{name}"' for name in self.metrics)
        return f"metrics=({names}{',' if len(self.metrics) == 1 else ''})" if names else ""


def verdict(audit: Audit) -> Verdict:
    """What an audit says, in sentences.

    Args:
        audit: The audit.

    Returns:
        Sentences about all metrics and about each, and the recommended metrics.
    """
    rows, words = readings(audit), Words(audit.protocol)
    cover = cheapest_cover(rows, audit.protocol.get("seconds"))
    sentences = (
        *_recommended(cover, rows, audit.protocol),
        *_unseen(rows, words),
        *_improving(rows, words),
        *_images_needed(cover, rows, words, audit.protocol),
        *_colour(audit.colour_share),
    )
    by_metric = {
        column.name: tuple(_about([row[column] for row in rows.values() if column in row], words))
        for column in columns_of(rows)
    }
    return Verdict(sentences, by_metric, tuple(column.name for column in cover.columns))


def _recommended(cover: Cover, rows: Readings, protocol: Mapping[str, Any]) -> Iterator[str]:
    changing = _changing(rows)
    count = protocol.get("num_images")
    where = f"On these {count} images" if count else "On these images"
    if not cover.columns:
        yield f"{where}, no metric sees any of the {len(changing)} faults from some dose on."
        return
    names = listed(column.name for column in cover.columns)
    seen, visible = len(cover.seen), len(cover.seen) + len(cover.missed)
    see = "sees" if len(cover.columns) == 1 else "together see"
    which = "all" if seen == visible else f"{seen} of the"
    yield (
        f"{where}, {names} {see} {which} {visible} faults that any of the {len(columns_of(rows))} metrics sees, of "
        f"{len(changing)} that were tried."
    )
    if cover.missed:
        missed = listed(Words.fault(fault) for fault in cover.missed)
        yield f"No {len(cover.columns)} metrics see more; only other metrics see {missed}."


def _unseen(rows: Readings, words: Words) -> Iterator[str]:
    unchanged = [fault for fault, row in rows.items() if _kinds(row) == {"unchanged"}]
    if unchanged:
        yield f"These images do not change under {listed(map(words.fault, unchanged))}: no metric can tell."
    unseen = [fault for fault in _changing(rows) if not _kinds(rows[fault]) & {"seen", "partly"}]
    if unseen:
        up_to = (words.cell(next(iter(rows[fault].values())).cells[-1]) for fault in unseen)
        named = (f"{words.fault(fault)} (tried up to {dose})" for fault, dose in zip(unseen, up_to, strict=True))
        yield f"No metric tells these as worse: {listed(named)}."


def _improving(rows: Readings, words: Words) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for fault, row in rows.items():
        for column, reading in row.items():
            if reading.better:
                found.setdefault(column.name, []).append(words.fault(fault))
    if found:
        named = "; ".join(f"{name} under {listed(faults)}" for name, faults in found.items())
        yield f"A better value is not always a better image: these metrics improve under faults: {named}."


def _images_needed(cover: Cover, rows: Readings, words: Words, protocol: Mapping[str, Any]) -> Iterator[str]:
    count = protocol.get("num_images")
    if not count:
        return
    for column in cover.columns:
        missed = [row[column] for row in rows.values() if column in row and row[column].kind == "seen"]
        needed = [(images, reading) for reading in missed if (images := _needed(reading, int(count))) is not None]
        if needed:
            named = [
                f"{words.fault(reading.fault)} of {words.dose(reading.fault, reading.cells[0].dose)} (about {images:,})"
                for images, reading in sorted(needed, key=lambda pair: pair[0])
            ]
            yield f"With more images {column.name} would tell smaller doses: {shortened(named, _MOST)}."


def _needed(reading: Reading, count: int) -> int | None:
    """Images that the smallest dose needs to be told as worse, to two digits; ``None``: it is told, or unknown."""
    smallest, strongest = reading.cells[0], reading.cells[-1]
    if smallest.told is not None or not smallest.change_std or smallest.change * strongest.change <= 0:
        return None
    errors = abs(smallest.change) / smallest.change_std
    return int(float(f"{count * (_CERTAIN / errors) ** 2:.1e}")) if errors >= _HINT else None


def _colour(shares: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    found = {
        Column(extractor, metric).name: share
        for extractor, row in (shares or {}).items()
        for metric, share in row.items()
        if share is not None
    }
    if not found:
        return
    low, high = min(found.values()), max(found.values())
    span = _percent(low) if len(found) == 1 else f"{_percent(low)} to {_percent(high)}"
    if high < _HARDLY:
        most_of_all = f"at most {_percent(max(high, 0))} of what any of them tells is gone in grey images"
        yield f"No metric depends much on colour: {most_of_all}."
        return
    most = [name for name, share in found.items() if share > _MAINLY]
    least = [name for name, share in found.items() if share < _HARDLY]
    parts = [f"mostly colour is what {listed(most)} {'tells' if len(most) == 1 else 'tell'}"] if most else []
    parts += [f"hardly any colour is in {listed(least)}"] if least else []
    yield f"Colour share, the part of the changes that is gone in grey images: {span}" + (
        f"; {'; '.join(parts)}." if parts else "."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _about(found: list[Reading], words: Words) -> Iterator[str]:
    """Sentences about one metric."""
    by_kind: dict[Kind, list[Reading]] = {}
    for reading in found:
        by_kind.setdefault(reading.kind, []).append(reading)
    seen = [(reading, reading.seen_from) for reading in by_kind.get("seen", [])]
    doses = [f"{words.fault(reading.fault)} from {words.cell(cell)}" for reading, cell in seen if cell is not None]
    yield f"Sees {listed(doses)}." if doses else "Sees no fault from some dose on."
    if partly := by_kind.get("partly"):
        named = listed(words.fault(reading.fault) for reading in partly)
        yield f"Tells {named} as worse at some doses, but not at all larger ones."
    improves = [
        f"{words.fault(reading.fault)} (at {words.cell(reading.better[0])})" for reading in found if reading.better
    ]
    if improves:
        yield f"Improves under {listed(improves)}."
    if blind := by_kind.get("blind"):
        named = listed(f"{words.fault(one.fault)} (up to {words.cell(one.cells[-1])})" for one in blind)
        yield f"Does not tell {named}."


def _changing(rows: Readings) -> list[str]:
    return [fault for fault, row in rows.items() if _kinds(row) != {"unchanged"}]


def _kinds(row: Mapping[Column, Reading]) -> set[Kind]:
    return {reading.kind for reading in row.values()}
