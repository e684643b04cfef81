"""Figures and tables as data: what a metric shows, drawn later and elsewhere."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Role = Literal["generated", "real", "held_out", "target"]
Values = NDArray[Any]


@dataclass(frozen=True)
class ImageRef:
    """An image by the set it belongs to and its number there; the pixels are read when they are drawn."""

    role: Role
    index: int


@dataclass(frozen=True)
class NameRef:
    """The name of an image: that of its file, else its number as an item of its set."""

    role: Role
    index: int


Cell = str | int | float | None | ImageRef | NameRef | NDArray[np.uint8]


class SheetCell(NamedTuple):
    """One or more images side by side, and a line of text below."""

    images: tuple[ImageRef, ...]
    text: str


class SheetRow(NamedTuple):
    """A row of a sheet: a label on its left, which may be empty, and its cells."""

    label: str
    cells: tuple[SheetCell, ...]


@dataclass(frozen=True)
class ImageSheet:
    """Rows of images with text.

    Args:
        rows: Rows of the sheet, all of one length but for the last, which may be shorter.
        columns: Titles of the columns; empty for none.
        title: Title of the sheet; empty for none.
    """

    rows: tuple[SheetRow, ...]
    columns: tuple[str, ...] = ()
    title: str = ""

    @property
    def images(self) -> list[ImageRef]:
        """The images on the sheet."""
        return [image for row in self.rows for cell in row.cells for image in cell.images]


@dataclass(frozen=True)
class Histograms:
    """Distributions of values over common bins.

    Args:
        values: Values (N,) by what they are.
        label: Name of the values, with their unit.
    """

    values: Mapping[str, Values]
    label: str

    @property
    def images(self) -> list[ImageRef]:
        """The images that are shown: none."""
        return []


class Points(NamedTuple):
    """Points of one kind: abscissae (N,), ordinates (N,), and a note for the legend, which may be empty."""

    x: Values
    y: Values
    note: str = ""


@dataclass(frozen=True)
class Scatters:
    """Panels of points.

    Args:
        panels: Points by panel, then by kind.
        label: Name of the abscissa; empty where axes have no meaning of their own, as in projections.
        title: Title of the figure; empty for none.
    """

    panels: Mapping[str, Mapping[str, Points]]
    label: str = ""
    title: str = ""

    @property
    def images(self) -> list[ImageRef]:
        """The images that are shown: none."""
        return []


class Bar(NamedTuple):
    """A bar: its name, its length, and the standard error of that if it is known."""

    name: str
    value: float
    error: float | None = None


@dataclass(frozen=True)
class Bars:
    """Panels of bars in a given order.

    Args:
        panels: Bars by panel.
        title: Title of the figure; empty for none.
    """

    panels: Mapping[str, tuple[Bar, ...]]
    title: str = ""

    def followed_by(self, other: "Bars") -> "Bars":
        """The panels of both."""
        return Bars({**self.panels, **other.panels}, self.title)

    @property
    def images(self) -> list[ImageRef]:
        """The images that are shown: none."""
        return []


Figure = ImageSheet | Histograms | Scatters | Bars


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        columns: Names of the columns.
        rows: Cells: text, numbers, ``None`` for what is undefined, names of images, or images: references, or uint8
            (H, W, 3).
        title: What the table shows; empty for its name.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    title: str = ""

    def followed_by(self, other: "Table") -> "Table":
        """The rows of both, which have the same columns."""
        return Table(self.columns, [*self.rows, *other.rows])

    @property
    def images(self) -> list[ImageRef]:
        """The images that the table refers to."""
        return [cell for row in self.rows for cell in row if isinstance(cell, ImageRef)]

    def without_images(self) -> "Table":
        """The columns that hold no images."""
        kept = [
            index
            for index in range(len(self.columns))
            if not any(isinstance(row[index], np.ndarray | ImageRef) for row in self.rows)
        ]
        columns = tuple(self.columns[index] for index in kept)
        return Table(columns, [tuple(row[index] for index in kept) for row in self.rows], self.title)

    def to_csv(self) -> str:
        """The columns that hold no images; undefined cells stay empty."""
        plain = self.without_images()
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(plain.columns)
        writer.writerows(plain.rows)
        return text.getvalue()

    def write_csv(self, path: Path) -> None:
        """Write ``to_csv`` to a file."""
        with path.open("w", newline="", encoding="utf-8") as file:
            file.write(self.to_csv())
