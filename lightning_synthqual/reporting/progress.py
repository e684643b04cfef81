"""How far an evaluation is, for whoever waits for it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TextIO

Advance = Callable[[int], None]


class Progress(Protocol):
    """Shows the stages of an evaluation one after the other."""

    def stage(self, name: str, total: int | None) -> AbstractContextManager[Advance]:
        """A stage of ``total`` steps (``None``: unknown); call what it yields with the number of steps done."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """A stage that nobody sees."""
        yield _ignore


class Bars:
    """A tqdm bar for each stage, with rate and remaining time, gone when the stage is done.

    Args:
        prefix: Before the name of each stage.
        file: Stream to write to; default: standard error.
        position: Line of the bar, below those of other bars.
        bar_format: Format of the bar, as for tqdm.
    """

    def __init__(
        self,
        prefix: str = "",
        file: TextIO | None = None,
        position: int | None = None,
        bar_format: str | None = None,
    ) -> None:
        self.prefix = prefix
        self.file = file
        self.position = position
        self.bar_format = bar_format

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """A stage as a bar."""
        from tqdm import tqdm

        title = f"{self.prefix}: {name}" if self.prefix else name
        style: dict[str, Any] = {"bar_format": self.bar_format, "position": self.position, "dynamic_ncols": True}
        with tqdm(desc=title, total=total, file=self.file or sys.stderr, leave=False, **style) as bar:
            yield lambda count: bar.update(count) and None


def _ignore(count: int) -> None:
    """Take no notice."""
