"""Tables: rows of plain values and pictures, as loggers, files and pages show them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Cell = str | int | float | None | NDArray[np.uint8]


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        columns: Their names.
        rows: The cells: text, numbers, ``None`` for what is undefined, or pictures, uint8 (H, W, 3).
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def without_pictures(self) -> "Table":
        """The columns that hold no pictures."""
        kept = [
            place
            for place in range(len(self.columns))
            if not any(isinstance(row[place], np.ndarray) for row in self.rows)
        ]
        columns = tuple(self.columns[place] for place in kept)
        return Table(columns, [tuple(row[place] for place in kept) for row in self.rows])

    def to_csv(self) -> str:
        """The columns that hold no pictures; undefined cells stay empty."""
        plain = self.without_pictures()
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(plain.columns)
        writer.writerows(plain.rows)
        return text.getvalue()

    def write_csv(self, path: Path) -> None:
        """Write ``to_csv`` to a file."""
        with path.open("w", newline="", encoding="utf-8") as file:
            file.write(self.to_csv())
