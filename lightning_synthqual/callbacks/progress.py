"""Progress bars for the stages of an evaluation, in the style of the trainer's own."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_synthqual.evaluation.reference import Reference
from lightning_synthqual.reporting.progress import Advance, Bars, Progress, Silent

_BELOW = 2  # lines that the trainer's own bars take


def progress_of(trainer: Trainer, prefix: str) -> Progress:
    """Progress bars like those of the trainer; none where it shows none.

    Args:
        trainer: The trainer.
        prefix: Text before the names of the stages.
    """
    bar: Any = trainer.progress_bar_callback
    if bar is None or bar.is_disabled:
        return Silent()
    # By name, so that both lightning.pytorch's and pytorch_lightning's classes are known.
    kinds = {kind.__name__ for kind in type(bar).__mro__}
    if "RichProgressBar" in kinds:
        return RichBars(bar, prefix)
    if "TQDMProgressBar" in kinds:
        position = 2 * bar.process_position + _BELOW
        return Bars(prefix, file=sys.stdout, position=position, bar_format=bar.BAR_FORMAT)
    return Silent()


class TrainingShare:
    """How much of the time of a training its evaluations take."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._started, self._spent = time.perf_counter(), 0.0

    def add(self, seconds: float) -> str:
        """Count an evaluation that took so many seconds, and say what share they have by now."""
        self._spent += seconds
        share = self._spent / max(time.perf_counter() - self._started, 1e-9)
        return f" ({share:.0%} of the time of training so far)"


class RichBars:
    """Progress bars in the display of a ``RichProgressBar``, or in one of their own while that one is not shown.

    Args:
        bar: The trainer's ``RichProgressBar``.
        prefix: Text before the names of the stages.
    """

    def __init__(self, bar: Any, prefix: str) -> None:
        self.bar = bar
        self.prefix = prefix

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """Show a bar that disappears when the stage is done."""
        from rich.progress import Progress as Display

        with ExitStack() as stack:
            display = self.bar.progress
            if display is None or not display.live.is_started:
                display = stack.enter_context(Display(transient=True))
            style = getattr(self.bar.theme, "description", "")
            title = f"{self.prefix}: {name}"
            # Lightning's columns print an unknown total where it is infinite.
            task = display.add_task(
                f"[{style}]{title}" if style else title, total=float("inf") if total is None else total
            )
            stack.callback(display.remove_task, task)
            yield lambda count: display.update(task, advance=count)


def tell_of_reference(reference: Reference, prefix: str) -> None:
    """Log where the features of the real images came from, if there are any."""
    if reference.main is not None:
        origin = "found in the cache" if reference.main.cached else "computed"
        rank_zero_info(f"{prefix}: features of {reference.count} images {origin} in {reference.seconds:.1f} s")
