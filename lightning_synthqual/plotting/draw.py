"""From figures and tables as data to pixels: drawn when they are first looked at."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor

from lightning_synthqual.metrics.figures import (
    Bars,
    Cell,
    Figure,
    Histograms,
    ImageRef,
    ImageSheet,
    NameRef,
    Scatters,
    Table,
)
from lightning_synthqual.plotting.bars import bars
from lightning_synthqual.plotting.canvas import Pixels
from lightning_synthqual.plotting.charts import histograms, scatters
from lightning_synthqual.plotting.sheets import Look, NameOf, grid, image_sheet, number

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Lazy(Mapping[str, _T], Generic[_T]):
    """A mapping whose values are made when it is first looked at; what fails is left out, with a warning.

    Args:
        makers: Functions that make the values, by name.
    """

    def __init__(self, makers: Mapping[str, Callable[[], _T]]) -> None:
        self._makers = dict(makers)
        self._made: dict[str, _T] | None = None

    def _values(self) -> dict[str, _T]:
        if self._made is None:
            self._made = {}
            for name, make in self._makers.items():
                try:
                    self._made[name] = make()
                except Exception as error:  # scores are not lost to an image that is gone
                    _log.warning("%s could not be drawn: %s: %s", name, type(error).__name__, error)
            self._makers = {}
        return self._made

    def after(self, makers: Mapping[str, Callable[[], _T]]) -> "Lazy[_T]":
        """The same with more values at the end, made when it is first looked at."""
        made = {name: partial(self.__getitem__, name) for name in (self._made or self._makers)}
        return Lazy({**made, **makers})

    def __getstate__(self) -> dict[str, Any]:
        self._values()  # functions do not pickle
        return vars(self)

    def __getitem__(self, name: str) -> _T:
        return self._values()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())


def draw(figure: Figure, look: Look, name_of: NameOf = number) -> Pixels:
    """A figure as pixels, uint8 (H, W, 3).

    Args:
        figure: The figure.
        look: Function that gives the pixels of an image.
        name_of: Function that gives the name of an image.
    """
    if isinstance(figure, ImageSheet):
        return image_sheet(figure, look, name_of)
    drawers: dict[type, Callable[[Any], Pixels]] = {Histograms: histograms, Scatters: scatters, Bars: bars}
    return drawers[type(figure)](figure)


def with_pixels(table: Table, look: Look, name_of: NameOf = number) -> Table:
    """A table with images and their names in place of the references to them."""

    def resolved(cell: Cell) -> Cell:
        if isinstance(cell, NameRef):
            return name_of(cell)
        return look(cell) if isinstance(cell, ImageRef) else cell

    return Table(table.columns, [tuple(map(resolved, row)) for row in table.rows], table.title)


def pixels(image: Tensor) -> Pixels:
    """An image uint8 (3, H, W) as uint8 (H, W, 3)."""
    found: Pixels = np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy())
    return found


__all__ = ["Lazy", "draw", "grid", "pixels", "with_pixels"]
