"""The few metrics that together see the most faults at the least cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from lightning_synthqual.audit.reading import Column, Readings, columns_of

_MOST = 3  # metrics that are recommended together


@dataclass(frozen=True)
class Cover:
    """Metrics, and the faults that they see together.

    Args:
        columns: The metrics.
        seen: Faults that at least one of them sees.
        missed: Faults that only other metrics see.
    """

    columns: tuple[Column, ...]
    seen: tuple[str, ...]
    missed: tuple[str, ...]


def cheapest_cover(rows: Readings, seconds: Mapping[str, float] | None = None, most: int = _MOST) -> Cover:
    """At most ``most`` metrics that see as many faults as possible.

    All sets are tried. Among those that see equally many faults, first the cost decides (the extraction time of the
    extractors if it is known for each, else their number), then the number of metrics, then how small the doses are
    that the best metric of each fault sees, and then the order of the metrics.

    Args:
        rows: What the audit says.
        seconds: Extraction time by extractor.
        most: Largest number of metrics.
    """
    ranks = {
        column: {fault: row[column].rank for fault, row in rows.items() if column in row and row[column].kind == "seen"}
        for column in columns_of(rows)
    }
    visible = [fault for fault in rows if any(fault in seen for seen in ranks.values())]
    useful = [column for column, seen in ranks.items() if seen]
    known = seconds is not None and all(column.extractor in seconds for column in useful)
    cost = {column.extractor: seconds[column.extractor] if known and seconds else 1.0 for column in useful}

    def order(chosen: tuple[Column, ...]) -> tuple[float, ...]:
        best = {fault: min(ranks[column].get(fault) or 99 for column in chosen) for fault in visible}
        seen = [rank for rank in best.values() if rank < 99]
        price = sum(cost[extractor] for extractor in {column.extractor for column in chosen})
        return (-len(seen), price, len(chosen), sum(seen))

    sets = (chosen for size in range(1, most + 1) for chosen in combinations(useful, size))
    chosen = min(sets, key=order, default=())
    seen = tuple(fault for fault in visible if any(fault in ranks[column] for column in chosen))
    return Cover(chosen, seen, tuple(fault for fault in visible if fault not in seen))
